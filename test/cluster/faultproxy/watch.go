package faultproxy

// This file ends watches between two of their events.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"mime"
	"net/http"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	restwatch "k8s.io/client-go/rest/watch"
)

// DropWatches cuts every watch in progress and returns how many there were. A
// watch is in progress from when it is forwarded until it ends.
func (p *Proxy) DropWatches() int {
	return p.endWatches(func(w *watch) { w.cancel() })
}

// ExpireWatches ends every watch in progress as the API server does when its
// resource version has become too old, and returns how many there were: after
// the last whole event comes one of type ERROR with a metav1.Status of code 410
// and reason Expired. A watch that the API server has not answered yet gets
// that status as its answer. A watch in another form than JSON or protobuf over
// plain HTTP is cut.
func (p *Proxy) ExpireWatches() int {
	return p.endWatches(func(w *watch) {
		w.expired.Store(true)
		w.cancel()
	})
}

func (p *Proxy) endWatches(end func(*watch)) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.watches)
	for w := range p.watches {
		end(w)
	}
	clear(p.watches)
	return n
}

// serveWatch forwards a watch and lets it be ended meanwhile.
func (p *Proxy) serveWatch(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	wt := &watch{cancel: cancel}
	p.mu.Lock()
	p.watches[wt] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watches, wt)
	}()
	p.forward(w, r.WithContext(ctx), wt.modify, wt.fail)
}

// A watch is one watch in progress.
type watch struct {
	cancel  context.CancelFunc // of the request to the API server
	expired atomic.Bool
}

// modify lets the answer to a watch end by an event, if it is in a form that
// the proxy knows.
func (w *watch) modify(res *http.Response) error {
	media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	f, ok := formats[media]
	if err != nil || !ok || res.StatusCode != http.StatusOK || res.Header.Get("Content-Encoding") != "" {
		return nil
	}
	res.Body = &stream{
		Closer: res.Body,
		r:      bufio.NewReader(res.Body),
		watch:  w,
		format: f,
	}
	return nil
}

// fail answers a watch that the API server has not answered.
func (w *watch) fail(rw http.ResponseWriter) {
	if !w.expired.Load() {
		cut(rw)
	}
	reply(rw, typed(tooOld("watch")))
}

// A stream is the body of a watch's answer. It gives out events one at a time
// and whole, and ends with an event of its own once the watch has expired.
type stream struct {
	io.Closer
	r      *bufio.Reader
	watch  *watch
	format format
	rest   []byte // of the event being given out
	err    error  // what comes after rest
}

func (s *stream) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if !s.watch.expired.Load() {
			s.rest, s.err = s.format.next(s.r)
		}
		// To expire a watch cancels its request: an error then says only that
		// the API server sent no further whole event.
		if s.watch.expired.Load() && (s.err != nil || len(s.rest) == 0) {
			s.rest, s.err = s.format.expired(), io.EOF
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// A format is how the events of a watch follow one another in a media type.
type format struct {
	next   func(*bufio.Reader) ([]byte, error) // reads an event as it came; with an error, the part that came
	framer runtime.Framer
	event  runtime.Encoder
	object runtime.Encoder
}

var formats = map[string]format{
	runtime.ContentTypeJSON: {
		next:   line,
		framer: json.Framer,
		event:  json.NewSerializerWithOptions(nil, nil, nil, json.SerializerOptions{}),
		object: json.NewSerializerWithOptions(nil, nil, nil, json.SerializerOptions{}),
	},
	runtime.ContentTypeProtobuf: {
		next:   prefixed,
		framer: protobuf.LengthDelimitedFramer,
		event:  protobuf.NewRawSerializer(nil, nil),
		object: protobuf.NewSerializer(nil, nil),
	},
}

// line reads up to the end of a line: the API server writes JSON without line
// breaks in it.
func line(r *bufio.Reader) ([]byte, error) { return r.ReadBytes('\n') }

// prefixed reads a length in four bytes, the first the most significant, and as
// many bytes as it says.
func prefixed(r *bufio.Reader) ([]byte, error) {
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, 4); err != nil {
		return b.Bytes(), err
	}
	_, err := io.CopyN(&b, r, int64(binary.BigEndian.Uint32(b.Bytes())))
	return b.Bytes(), err
}

// expired returns the event that says that a watch has expired.
func (f format) expired() []byte {
	var b bytes.Buffer
	e := restwatch.NewEncoder(streaming.NewEncoder(f.framer.NewFrameWriter(&b), f.event), f.object)
	if err := e.Encode(&apiwatch.Event{Type: apiwatch.Error, Object: typed(tooOld("watch"))}); err != nil {
		panic(err) // the same event always, and a buffer takes it all
	}
	return b.Bytes()
}
