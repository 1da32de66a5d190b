package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// This file reads and writes the IDX files that MNIST comes in. The format is
// described at the foot of http://yann.lecun.com/exdb/mnist/.

const (
	side   = 28          // of an image, pixels
	pixels = side * side // of an image

	imagesMagic = 0x0803     // unsigned bytes, three dimensions
	labelsMagic = 0x0801     // unsigned bytes, one dimension
	maxImages   = 10_000_000 // in one file: more is taken for damage
)

// The four files of the data set, as they are named since 1998.
const (
	trainImages = "train-images-idx3-ubyte"
	trainLabels = "train-labels-idx1-ubyte"
	testImages  = "t10k-images-idx3-ubyte"
	testLabels  = "t10k-labels-idx1-ubyte"
)

// dataset is a list of labelled images.
type dataset struct {
	images []byte // 784 bytes an image, row by row, 0 background to 255 ink
	labels []byte // 0 to 9, one an image
}

func (d *dataset) len() int           { return len(d.labels) }
func (d *dataset) image(i int) []byte { return d.images[i*pixels : (i+1)*pixels] }

// loadMNIST reads the training and the test set from a folder that holds the
// four files, each as it is or compressed by gzip.
func loadMNIST(dir string) (train, test *dataset, err error) {
	if train, err = loadSet(dir, trainImages, trainLabels); err != nil {
		return nil, nil, err
	}
	if test, err = loadSet(dir, testImages, testLabels); err != nil {
		return nil, nil, err
	}
	return train, test, nil
}

// loadSet reads the images in one file and their labels in another.
func loadSet(dir, images, labels string) (*dataset, error) {
	d := new(dataset)
	var err error
	if d.images, err = loadIDX(dir, images, readImages); err != nil {
		return nil, err
	}
	if d.labels, err = loadIDX(dir, labels, readLabels); err != nil {
		return nil, err
	}
	if got, want := len(d.labels), len(d.images)/pixels; got != want {
		return nil, fmt.Errorf("%s has %d labels and %s has %d images: wanted one label for each image; are the files of one set?",
			labels, got, images, want)
	}
	if d.len() == 0 {
		return nil, fmt.Errorf("%s holds no images", filepath.Join(dir, images))
	}
	return d, nil
}

// loadIDX opens dir/name or dir/name.gz and reads it by read.
func loadIDX(dir, name string, read func(io.Reader) ([]byte, error)) ([]byte, error) {
	name = filepath.Join(dir, name)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = os.Open(name + ".gz"); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("found neither %s nor %[1]s.gz: wanted the four files %s, %s, %s and %s in one folder",
				name, trainImages, trainLabels, testImages, testLabels)
		}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readPacked(f, read)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return data, nil
}

// readPacked reads r by read, and through gzip first if it begins like gzip.
func readPacked(r io.Reader, read func(io.Reader) ([]byte, error)) ([]byte, error) {
	br := bufio.NewReader(r)
	if head, _ := br.Peek(2); !bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return read(br)
	}
	zr, err := gzip.NewReader(br)
	if err != nil {
		return nil, err
	}
	return read(zr)
}

// readImages reads an IDX file of 28x28 images and returns their pixels.
func readImages(r io.Reader) ([]byte, error) {
	dims, err := readHeader(r, imagesMagic, 3)
	if err != nil {
		return nil, err
	}
	if dims[1] != side || dims[2] != side {
		return nil, fmt.Errorf("images are %dx%d: wanted %dx%d", dims[1], dims[2], side, side)
	}
	return readItems(r, dims[0], pixels)
}

// readLabels reads an IDX file of labels from 0 to 9.
func readLabels(r io.Reader) ([]byte, error) {
	dims, err := readHeader(r, labelsMagic, 1)
	if err != nil {
		return nil, err
	}
	labels, err := readItems(r, dims[0], 1)
	if err != nil {
		return nil, err
	}
	for i, l := range labels {
		if l > 9 {
			return nil, fmt.Errorf("label %d is %d: wanted 0 to 9", i, l)
		}
	}
	return labels, nil
}

// readHeader reads the magic number and n dimensions, all big endian.
func readHeader(r io.Reader, magic uint32, n int) ([]uint32, error) {
	head := make([]uint32, 1+n)
	if err := binary.Read(r, binary.BigEndian, head); err != nil {
		return nil, fmt.Errorf("the header is cut short: wanted %d bytes: %w", 4*len(head), err)
	}
	if head[0] != magic {
		return nil, fmt.Errorf("the file begins with %#08x: wanted %#08x, so it is not the IDX file its name says", head[0], magic)
	}
	if head[1] > maxImages {
		return nil, fmt.Errorf("the header says %d items: wanted %d at most", head[1], maxImages)
	}
	return head[1:], nil
}

// readItems reads n items of size bytes and the end of the file. It takes
// memory for what is there, whatever the header says.
func readItems(r io.Reader, n uint32, size int) ([]byte, error) {
	want := int64(n) * int64(size)
	data, err := io.ReadAll(io.LimitReader(r, want+1))
	if err != nil {
		return nil, err
	}
	if got := int64(len(data)); got < want {
		return nil, fmt.Errorf("the file is cut short: found %d bytes of items, wanted %d", got, want)
	} else if got > want {
		return nil, fmt.Errorf("the file is too long: wanted %d bytes of items, as the header says", want)
	}
	return data, nil
}

// saveSet writes a data set as two IDX files.
func saveSet(dir, images, labels string, d *dataset) error {
	n := uint32(d.len())
	if err := writeFile(filepath.Join(dir, images), idxBytes(d.images, imagesMagic, n, side, side)); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, labels), idxBytes(d.labels, labelsMagic, n))
}

func idxBytes(items []byte, head ...uint32) []byte {
	var b []byte
	for _, v := range head {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return append(b, items...)
}
