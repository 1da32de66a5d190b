package main

import (
	"context"
	"fmt"
	"image"
	"image/draw"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goitalic"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/gofont/gomonobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// This file draws digits, for a machine that has no MNIST: a third of them
// printed, from the Go fonts, the others written by pen strokes, so that the
// model also knows what a visitor draws on the page. Each digit is bent,
// turned, slanted, scaled into a 20x20 box, centred by mass in 28x28 pixels as
// MNIST is, shifted a little and sprinkled with noise.

const (
	drawnTrain = 20_000 // images to learn from
	drawnTest  = 4_000  // images held out

	trainSeed = 1
	testSeed  = 2 // the held-out digits are drawn from another seed

	// drawnVersion is part of the folder's name: count it up when the
	// drawing changes, so that nobody learns from the old digits.
	drawnVersion = 1
)

// drawnMNIST returns the two sets of drawn digits. It keeps them as IDX files
// under home, and reads them back as it would read MNIST itself.
func drawnMNIST(ctx context.Context, home string) (train, test *dataset, err error) {
	dir := filepath.Join(home, "digits", "v"+strconv.Itoa(drawnVersion))
	if train, test, err = loadMNIST(dir); err == nil && train.len() == drawnTrain && test.len() == drawnTest {
		return train, test, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	for _, s := range []struct {
		images, labels string
		seed           uint64
		n              int
	}{
		{trainImages, trainLabels, trainSeed, drawnTrain},
		{testImages, testLabels, testSeed, drawnTest},
	} {
		d, err := drawDigits(ctx, s.seed, s.n)
		if err != nil {
			return nil, nil, err
		}
		if err := saveSet(dir, s.images, s.labels, d); err != nil {
			return nil, nil, fmt.Errorf("keep the drawn digits: %w", err)
		}
	}
	return loadMNIST(dir)
}

// drawDigits draws n digits. Digit i depends on the seed and on i alone.
func drawDigits(ctx context.Context, seed uint64, n int) (*dataset, error) {
	fonts, err := loadFonts()
	if err != nil {
		return nil, err
	}
	d := &dataset{images: make([]byte, n*pixels), labels: make([]byte, n)}
	var wg sync.WaitGroup
	for part := range parts {
		wg.Go(func() {
			a := artist{fonts: fonts}
			lo, hi := span(n, part)
			for i := lo; i < hi && ctx.Err() == nil; i++ {
				a.rng = rand.New(rand.NewPCG(seed, uint64(i)))
				label := a.rng.IntN(10)
				d.labels[i] = byte(label)
				a.draw(d.image(i), label)
			}
		})
	}
	wg.Wait()
	return d, ctx.Err()
}

type point struct{ x, y float64 }

// shape is a digit of any size at any place, as lines from point to point.
type shape struct {
	lines [][]point
	pen   float64 // radius in pixels of the pen along the lines; 0: the lines are the edge of the ink
}

// artist draws digits, one after another.
type artist struct {
	rng   *rand.Rand
	fonts []*sfnt.Font
	buf   sfnt.Buffer
}

// draw draws a digit into 28x28 zero bytes.
func (a *artist) draw(img []byte, digit int) {
	var s shape
	if a.rng.IntN(3) == 0 {
		s = a.printed(digit)
	} else {
		s = a.written(digit)
	}
	a.distort(s)

	// Once to find the centre of mass, once to draw around it.
	fit(s, 18+3*a.rng.Float64())
	dx, dy := centre(s.render())
	dx += 2 * (a.rng.Float64() - .5)
	dy += 2 * (a.rng.Float64() - .5)
	for _, line := range s.lines {
		for i := range line {
			line[i].x += dx
			line[i].y += dy
		}
	}

	ink := .75 + .25*a.rng.Float64()
	for i, v := range s.render() {
		w := float64(v) * ink
		if v > 0 {
			w += 20 * a.rng.NormFloat64()
		} else if a.rng.IntN(100) == 0 {
			w = 80 * a.rng.Float64()
		}
		img[i] = byte(min(max(w, 0), 255))
	}
}

// distort bends, slants, stretches and turns the shape.
func (a *artist) distort(s shape) {
	sin, cos := math.Sincos(.15 * a.rng.NormFloat64())
	slant := .18 * a.rng.NormFloat64()
	wide := math.Exp(.18 * a.rng.NormFloat64())
	bend, phase := .05*a.rng.NormFloat64(), 2*math.Pi*a.rng.Float64()
	for _, line := range s.lines {
		for i, p := range line {
			p.x += bend * math.Sin(4*p.y+phase)
			p.x = (p.x - slant*p.y) * wide
			line[i] = point{cos*p.x - sin*p.y, sin*p.x + cos*p.y}
		}
	}
}

// fit scales the shape, with its pen, so that its longer side is size pixels,
// and puts it in the middle of the image.
func fit(s shape, size float64) {
	lo, hi := point{math.Inf(1), math.Inf(1)}, point{math.Inf(-1), math.Inf(-1)}
	for _, line := range s.lines {
		for _, p := range line {
			lo = point{min(lo.x, p.x), min(lo.y, p.y)}
			hi = point{max(hi.x, p.x), max(hi.y, p.y)}
		}
	}
	scale := (size - 2*s.pen) / max(hi.x-lo.x, hi.y-lo.y, 1e-9)
	for _, line := range s.lines {
		for i, p := range line {
			line[i] = point{
				side/2 + scale*(p.x-(lo.x+hi.x)/2),
				side/2 + scale*(p.y-(lo.y+hi.y)/2),
			}
		}
	}
}

// centre returns how far the ink must move for its centre of mass to be in
// the middle of the image.
func centre(img []byte) (dx, dy float64) {
	var sum, sx, sy float64
	for i, v := range img {
		sum += float64(v)
		sx += float64(v) * (float64(i%side) + .5)
		sy += float64(v) * (float64(i/side) + .5)
	}
	if sum == 0 {
		return 0, 0
	}
	return side/2 - sx/sum, side/2 - sy/sum
}

// render returns the shape as 28x28 bytes of ink. What lies outside is lost.
func (s shape) render() []byte {
	if s.pen == 0 {
		return s.fill()
	}
	img := make([]byte, pixels)
	for _, line := range s.lines {
		for i := 1; i < len(line); i++ {
			s.segment(img, line[i-1], line[i])
		}
	}
	return img
}

// segment draws one straight line of the pen: a pixel gets as much ink as its
// centre is near.
func (s shape) segment(img []byte, a, b point) {
	reach := s.pen + 1
	x0, x1 := int(max(min(a.x, b.x)-reach, 0)), int(min(max(a.x, b.x)+reach, side-1))
	y0, y1 := int(max(min(a.y, b.y)-reach, 0)), int(min(max(a.y, b.y)+reach, side-1))
	dx, dy := b.x-a.x, b.y-a.y
	length2 := dx*dx + dy*dy
	for y := y0; y <= y1; y++ {
		for x := x0; x <= x1; x++ {
			px, py := float64(x)+.5-a.x, float64(y)+.5-a.y
			t := 0.0 // the nearest point of the line, 0 at a to 1 at b
			if length2 > 0 {
				t = min(max((px*dx+py*dy)/length2, 0), 1)
			}
			v := min(s.pen+.5-math.Hypot(px-t*dx, py-t*dy), 1) * 255
			if i := y*side + x; v > float64(img[i]) {
				img[i] = byte(v)
			}
		}
	}
}

// fill draws the inside of the lines.
func (s shape) fill() []byte {
	z := vector.NewRasterizer(side, side)
	for _, line := range s.lines {
		for i, p := range line {
			if i == 0 {
				z.MoveTo(float32(p.x), float32(p.y))
			} else {
				z.LineTo(float32(p.x), float32(p.y))
			}
		}
		z.ClosePath()
	}
	z.DrawOp = draw.Src
	dst := image.NewAlpha(image.Rect(0, 0, side, side))
	z.Draw(dst, dst.Bounds(), image.Opaque, image.Point{})
	return dst.Pix
}

// loadFonts parses the fonts of the printed digits.
func loadFonts() ([]*sfnt.Font, error) {
	var fonts []*sfnt.Font
	for _, ttf := range [][]byte{goregular.TTF, gobold.TTF, goitalic.TTF, gomono.TTF, gomonobold.TTF} {
		f, err := sfnt.Parse(ttf)
		if err != nil {
			return nil, fmt.Errorf("parse a Go font: %w", err)
		}
		fonts = append(fonts, f)
	}
	return fonts, nil
}

// printed returns the outline of a digit in one of the fonts.
func (a *artist) printed(digit int) shape {
	f := a.fonts[a.rng.IntN(len(a.fonts))]
	const em = 64
	glyph, err := f.GlyphIndex(&a.buf, rune('0'+digit))
	if err != nil {
		panic(err) // the fonts are part of the program
	}
	segments, err := f.LoadGlyph(&a.buf, glyph, fixed.I(em), nil)
	if err != nil {
		panic(err)
	}
	var s shape
	at := func(p fixed.Point26_6) point {
		return point{float64(p.X) / (64 * em), float64(p.Y) / (64 * em)}
	}
	for _, seg := range segments {
		if seg.Op == sfnt.SegmentOpMoveTo {
			s.lines = append(s.lines, []point{at(seg.Args[0])})
			continue
		}
		line := &s.lines[len(s.lines)-1]
		if seg.Op == sfnt.SegmentOpLineTo {
			*line = append(*line, at(seg.Args[0]))
			continue
		}
		// TrueType has only quadratic curves.
		p, q, r := (*line)[len(*line)-1], at(seg.Args[0]), at(seg.Args[1])
		const n = 4
		for i := 1; i <= n; i++ {
			t := float64(i) / n
			u := 1 - t
			*line = append(*line, point{
				u*u*p.x + 2*u*t*q.x + t*t*r.x,
				u*u*p.y + 2*u*t*q.y + t*t*r.y,
			})
		}
	}
	return s
}

// hands holds ways to write each digit: the points that the pen passes, "x,y"
// in hundredths of a box from its upper left corner, and "/" where the stroke
// ends and another begins. Strokes that share a point make a corner there.
var hands = [10][]string{
	{
		"50,2 20,20 10,50 20,80 50,98 80,80 90,50 80,20 50,2",
		"62,4 30,12 12,45 22,85 52,97 82,78 88,42 70,10 45,8",
	},
	{
		"50,0 50,50 50,100",
		"28,22 55,0 / 55,0 55,50 55,100",
		"28,22 55,0 / 55,0 55,50 55,100 / 28,100 80,100",
	},
	{
		"15,25 30,5 60,2 80,20 72,45 40,75 12,100 / 12,100 50,97 90,100",
		"15,22 45,2 80,20 65,55 30,90 12,92 20,78 45,85 70,98 92,90",
		"15,15 50,2 82,18 75,42 45,70 15,97 / 15,97 55,90 90,97",
	},
	{
		"15,15 45,0 78,15 72,38 42,47 / 42,47 80,58 85,82 50,100 12,85",
		"15,3 50,4 82,3 / 82,3 42,42 / 42,42 80,52 85,82 50,100 12,88",
		"18,12 50,0 80,18 62,42 40,48 65,52 85,75 60,98 15,92",
	},
	{
		"20,0 12,55 / 12,55 50,55 88,55 / 72,5 70,50 70,100",
		"65,0 38,32 10,65 / 10,65 50,65 92,65 / 65,0 65,50 65,100",
		"20,5 15,40 35,55 78,42 / 82,2 78,42 72,100",
	},
	{
		"82,2 55,3 25,2 / 25,2 20,42 / 20,42 55,36 85,60 75,90 40,100 10,88",
		"82,5 40,3 22,20 30,42 65,50 82,72 60,96 12,92",
		"85,0 30,3 / 30,3 25,45 / 25,45 65,42 85,68 62,96 15,97",
	},
	{
		"70,2 35,25 15,65 30,95 65,97 82,75 62,52 30,58 16,75",
		"55,0 25,40 15,75 40,100 75,90 78,65 50,55 20,70",
		"30,0 18,40 15,75 40,100 75,92 80,68 50,55 20,70",
	},
	{
		"10,5 50,5 88,5 / 88,5 62,50 40,100",
		"10,5 50,5 88,5 / 88,5 62,50 40,100 / 32,52 78,52",
		"10,8 50,5 85,8 60,45 45,100",
		"12,22 12,4 / 12,4 50,4 88,4 / 88,4 60,50 45,100",
	},
	{
		"75,12 45,0 20,20 45,45 78,72 55,98 22,85 30,60 60,42 80,20 75,12",
		"50,0 22,22 50,45 78,22 50,0 / 50,45 15,72 50,100 85,72 50,45",
		"80,10 45,2 25,22 50,48 75,75 50,100 25,78 48,50 80,10",
	},
	{
		"80,22 50,2 18,25 35,50 65,45 80,22 / 80,22 78,60 70,100",
		"80,22 50,2 18,25 35,50 65,45 80,22 / 80,22 80,60 60,95 25,95",
		"78,8 40,2 18,28 40,50 78,30 / 78,8 78,30 76,100",
	},
}

// written returns a digit as a hand writes it: one of its ways, each point a
// little off, and a smooth line through the points.
func (a *artist) written(digit int) shape {
	ways := hands[digit]
	s := shape{pen: .9 + .9*a.rng.Float64()}
	off := map[string]point{} // so that strokes that share a point still do
	for stroke := range strings.SplitSeq(ways[a.rng.IntN(len(ways))], "/") {
		var through []point
		for _, xy := range strings.Fields(stroke) {
			p, ok := off[xy]
			if !ok {
				x, y, _ := strings.Cut(xy, ",")
				p = point{atof(x) / 100, atof(y) / 100}
				p.x += .035 * a.rng.NormFloat64()
				p.y += .035 * a.rng.NormFloat64()
				off[xy] = p
			}
			through = append(through, p)
		}
		s.lines = append(s.lines, smooth(through))
	}
	return s
}

func atof(s string) float64 {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(err) // hands is part of the program
	}
	return v
}

// smooth returns a line through all the points, a Catmull-Rom spline.
func smooth(p []point) []point {
	const n = 5 // pieces from point to point
	line := []point{p[0]}
	for i := 1; i < len(p); i++ {
		a, b, c, d := p[max(i-2, 0)], p[i-1], p[i], p[min(i+1, len(p)-1)]
		for j := 1; j <= n; j++ {
			t := float64(j) / n
			line = append(line, point{spline(a.x, b.x, c.x, d.x, t), spline(a.y, b.y, c.y, d.y, t)})
		}
	}
	return line
}

func spline(a, b, c, d, t float64) float64 {
	return b + t/2*(c-a+t*(2*a-5*b+4*c-d+t*(3*(b-c)+d-a)))
}
