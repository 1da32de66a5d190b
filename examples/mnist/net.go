package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// This file is the classifier: 784 pixels, 128 hidden units with ReLU, 10
// digits by softmax, trained by Adam (Kingma and Ba, arXiv:1412.6980).

const (
	hidden  = 128
	classes = 10

	// Where each layer begins in the flat list of a network's numbers.
	b1At   = pixels * hidden
	w2At   = b1At + hidden
	b2At   = w2At + hidden*classes
	params = b2At + classes

	// parts is how many goroutines share a job. It is the same on every
	// machine, because the order of a sum decides its last bits.
	parts = 4
)

// span returns the part-th of the equal parts of n items: lo up to hi.
func span(n, part int) (lo, hi int) { return n * part / parts, n * (part + 1) / parts }

// network holds the numbers of a classifier, or their gradients: the 784x128
// weights of the first layer, its 128 biases, the 128x10 weights of the
// second layer and its 10 biases. Its length is params.
type network []float32

func (n network) w1(i int) *[hidden]float32  { return (*[hidden]float32)(n[i*hidden:]) }
func (n network) b1() *[hidden]float32       { return (*[hidden]float32)(n[b1At:]) }
func (n network) w2(j int) *[classes]float32 { return (*[classes]float32)(n[w2At+j*classes:]) }
func (n network) b2() *[classes]float32      { return (*[classes]float32)(n[b2At:]) }

// newNetwork returns a network to start from, with weights as He et al. draw
// them for ReLU (arXiv:1502.01852).
func newNetwork(rng *rand.Rand) network {
	n := make(network, params)
	for i := range b1At {
		n[i] = float32(rng.NormFloat64() * math.Sqrt(2./pixels))
	}
	for i := w2At; i < b2At; i++ {
		n[i] = float32(rng.NormFloat64() * math.Sqrt(2./hidden))
	}
	return n
}

// forward returns the hidden layer and the probability of each digit for one
// image, whose values go from 0 to 1.
func (n network) forward(image *[pixels]float32) (h [hidden]float32, p [classes]float32) {
	h = *n.b1()
	for i, v := range image {
		if v != 0 { // most of an image is background
			w := n.w1(i)
			for j := range h {
				h[j] += v * w[j]
			}
		}
	}
	p = *n.b2()
	for j, v := range h {
		if v <= 0 {
			h[j] = 0
			continue
		}
		w := n.w2(j)
		for k := range p {
			p[k] += v * w[k]
		}
	}
	top := p[0]
	for _, v := range p {
		top = max(top, v)
	}
	var sum float32
	for k, v := range p {
		p[k] = float32(math.Exp(float64(v - top)))
		sum += p[k]
	}
	for k := range p {
		p[k] /= sum
	}
	return h, p
}

// backward adds the gradients of the loss of one image to grad.
func (n network) backward(grad network, image *[pixels]float32, label byte, h *[hidden]float32, p [classes]float32) {
	p[label]-- // the gradient of softmax and cross-entropy together
	b2 := grad.b2()
	for k, d := range p {
		b2[k] += d
	}
	var dh [hidden]float32
	for j, v := range h {
		if v > 0 {
			w, g := n.w2(j), grad.w2(j)
			for k, d := range p {
				dh[j] += w[k] * d
				g[k] += v * d
			}
		}
	}
	b1 := grad.b1()
	for j, d := range dh {
		b1[j] += d
	}
	for i, v := range image {
		if v != 0 {
			g := grad.w1(i)
			for j, d := range dh {
				g[j] += v * d
			}
		}
	}
}

// toFloats turns the bytes of an image into numbers from 0 to 1.
func toFloats(dst *[pixels]float32, img []byte) {
	for i, v := range img {
		dst[i] = float32(v) / 255
	}
}

// score is how well a network does: sums over images.
type score struct {
	loss  float64 // cross-entropy
	right int     // images whose digit was the likeliest
	n     int     // images
}

func (s *score) add(p *[classes]float32, label byte) {
	best := 0
	for k, v := range p {
		if v > p[best] {
			best = k
		}
	}
	if best == int(label) {
		s.right++
	}
	// A network that diverged has NaN here, and so has its loss.
	s.loss -= math.Log(max(float64(p[label]), 1e-12))
	s.n++
}

func (s *score) sum(o score) {
	s.loss += o.loss
	s.right += o.right
	s.n += o.n
}

func (s score) meanLoss() float64 { return s.loss / float64(s.n) }
func (s score) accuracy() float64 { return float64(s.right) / float64(s.n) }

// evaluate scores the network on a data set.
func (n network) evaluate(d *dataset) score {
	var scores [parts]score
	var wg sync.WaitGroup
	for part := range parts {
		wg.Go(func() {
			var image [pixels]float32
			lo, hi := span(d.len(), part)
			for i := lo; i < hi; i++ {
				toFloats(&image, d.image(i))
				_, p := n.forward(&image)
				scores[part].add(&p, d.labels[i])
			}
		})
	}
	wg.Wait()
	var total score
	for _, s := range scores {
		total.sum(s)
	}
	return total
}

// training says how to train.
type training struct {
	steps  int     // batches
	batch  int     // images a step, at most as many as there are
	rate   float64 // the highest learning rate: see rateAt
	seed   uint64  // of the first weights and of the order of the images
	report func(step int, s score)
	every  int // steps from one report to the next, which scores the images between
}

// rateAt returns the learning rate of a step, counted from 0: it climbs in the
// first tenth of the steps, at most 100, and then falls along a cosine to a
// fiftieth. That lets a rate of 0.01 do as well as 0.001.
func (t training) rateAt(step int) float64 {
	warm := min(t.steps/10, 100)
	if step < warm {
		return t.rate * float64(step+1) / float64(warm)
	}
	done := float64(step-warm) / float64(t.steps-warm)
	return t.rate * (.02 + .98*(1+math.Cos(math.Pi*done))/2)
}

// train returns a network trained on d. Equal arguments give an equal network
// on machines of one architecture, whatever the number of their cores.
func train(ctx context.Context, d *dataset, t training) (network, error) {
	rng := rand.New(rand.NewPCG(t.seed, 0))
	net := newNetwork(rng)
	opt := adam{mean: make(network, params), square: make(network, params)}
	for part := range opt.grads {
		opt.grads[part] = make(network, params)
	}
	order := rng.Perm(d.len())
	next := 0
	var window score
	for step := range t.steps {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("training ended at step %d of %d: %w", step, t.steps, context.Cause(ctx))
		}
		if next+t.batch > len(order) {
			rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			next = 0
		}
		s := opt.gradients(net, d, order[next:next+t.batch])
		next += t.batch
		if math.IsNaN(s.loss) {
			return nil, fmt.Errorf("training diverged at step %d of %d: take a learning rate lower than %g", step+1, t.steps, t.rate)
		}
		opt.update(net, t.rateAt(step), t.batch)

		window.sum(s)
		if t.report != nil && ((step+1)%t.every == 0 || step+1 == t.steps) {
			t.report(step+1, window)
			window = score{}
		}
	}
	return net, nil
}

// adam is the state of the optimiser.
type adam struct {
	grads  [parts]network // of the batch, to be summed
	mean   network        // running mean of the gradients
	square network        // running mean of their squares
	step   int
}

// gradients leaves the gradients of a batch in a.grads.
func (a *adam) gradients(net network, d *dataset, batch []int) score {
	var scores [parts]score
	var wg sync.WaitGroup
	for part, grad := range a.grads {
		wg.Go(func() {
			clear(grad)
			var image [pixels]float32
			lo, hi := span(len(batch), part)
			for _, i := range batch[lo:hi] {
				toFloats(&image, d.image(i))
				h, p := net.forward(&image)
				scores[part].add(&p, d.labels[i])
				net.backward(grad, &image, d.labels[i], &h, p)
			}
		})
	}
	wg.Wait()
	var total score
	for _, s := range scores {
		total.sum(s)
	}
	return total
}

// update takes one step along the gradients of a batch of n images.
func (a *adam) update(net network, rate float64, n int) {
	const decay1, decay2, epsilon = .9, .999, 1e-7
	a.step++
	bias1 := 1 - math.Pow(decay1, float64(a.step))
	bias2 := 1 - math.Pow(decay2, float64(a.step))
	scale, size := 1/float32(n), float32(rate*math.Sqrt(bias2)/bias1)
	var wg sync.WaitGroup
	for part := range parts {
		wg.Go(func() {
			lo, hi := span(params, part)
			for i := lo; i < hi; i++ {
				var g float32
				for _, grad := range a.grads {
					g += grad[i]
				}
				g *= scale
				a.mean[i] += (1 - decay1) * (g - a.mean[i])
				a.square[i] += (1 - decay2) * (g*g - a.square[i])
				net[i] -= size * a.mean[i] / (float32(math.Sqrt(float64(a.square[i]))) + epsilon)
			}
		})
	}
	wg.Wait()
}

// seconds rounds a time for people to read.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*100) / 100 }
