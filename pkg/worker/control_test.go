package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// TestMain is the fake helper too: the daemon's helpers are its own binary, and so are the tests'.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "helper" {
		switch os.Args[2] {
		case "blocklist":
			fakeControl()
		case "volume":
			fakeVolume()
		}
		return
	}
	os.Exit(m.Run())
}

// fakeControl answers by the image's name.
func fakeControl() {
	lines := bufio.NewScanner(os.Stdin)
	var out sync.Mutex
	for lines.Scan() {
		var r Request
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			return
		}
		answer := Response{ID: r.ID, Image: &Image{Size: uint64(os.Getpid())}}
		switch r.Inspect.Volume.Image {
		case "hangs":
			continue
		case "dies":
			return
		case "babbles":
			fmt.Println("what?")
			continue
		case "fails":
			answer = Response{ID: r.ID, Failure: &Failure{Code: CodeImageMissing, Message: "no such image"}}
		}
		out.Lock()
		_ = json.NewEncoder(os.Stdout).Encode(answer)
		out.Unlock()
	}
}

func fakeVolume() {
	var job VolumeJob
	if json.NewDecoder(os.Stdin).Decode(&job) != nil {
		return
	}
	_ = json.NewEncoder(os.Stdout).Encode(VolumeProgress{Step: "begun"})
	switch job.Volume.Spec.Image {
	case "hangs":
		select {}
	case "fails":
		_ = json.NewEncoder(os.Stdout).Encode(VolumeProgress{Failure: &Failure{Code: CodeImageExists, Message: "it is there"}})
	case "fine":
		_ = json.NewEncoder(os.Stdout).Encode(VolumeProgress{Done: true})
	}
}

func asks(image string) Request {
	var r Request
	r.Inspect = &Inspect{}
	r.Inspect.Volume.Image = image
	return r
}

func TestControl(t *testing.T) {
	c := NewControl(Helpers{Binary: os.Args[0], Log: os.Stderr}, Ceph{})
	defer c.Close()
	ask := func(image string, bound time.Duration) (Response, error) {
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		return c.Do(ctx, asks(image))
	}
	const long = 20 * time.Second
	first, err := ask("fine", long)
	if err != nil {
		t.Fatal(err)
	}
	var failure *Failure
	if _, err := ask("fails", long); !errors.As(err, &failure) || failure.Code != CodeImageMissing || errors.Is(err, ErrControl) {
		t.Errorf("a failure came as %v", err)
	}
	if again, err := ask("fine", long); err != nil || again.Image.Size != first.Image.Size {
		t.Errorf("not the same process after a failure: %v", err)
	}
	// Whatever else happens the outcome is unknown, in bounded time, and the next call has a new process.
	last := first.Image.Size
	for _, image := range []string{"dies", "babbles", "hangs"} {
		bound := long
		if image == "hangs" {
			bound = 50 * time.Millisecond
		}
		if _, err := ask(image, bound); !errors.Is(err, ErrControl) {
			t.Errorf("%s: %v", image, err)
		}
		now, err := ask("fine", long)
		if err != nil || now.Image.Size == last {
			t.Fatalf("after %s: %v", image, err)
		}
		last = now.Image.Size
	}
}

func TestControlTakesManyAtOnce(t *testing.T) {
	c := NewControl(Helpers{Binary: os.Args[0], Log: os.Stderr}, Ceph{})
	defer c.Close()
	var work sync.WaitGroup
	for range 32 {
		work.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := c.Do(ctx, asks("fine")); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
}

func TestNoHelper(t *testing.T) {
	c := NewControl(Helpers{Binary: "/nonexistent"}, Ceph{})
	if _, err := c.Do(t.Context(), asks("fine")); err == nil {
		t.Error("no helper, no error")
	}
	c.Close()
}

func TestVolume(t *testing.T) {
	h := Helpers{Binary: os.Args[0], Log: os.Stderr}
	isFailure := func(err error) bool { var f *Failure; return errors.As(err, &f) }
	isUnknown := func(err error) bool { return errors.Is(err, ErrControl) }
	isNil := func(err error) bool { return err == nil }
	for image, want := range map[string]func(error) bool{
		"fine": isNil, "fails": isFailure, "ends without a word": isUnknown, "hangs": isUnknown,
	} {
		t.Run(image, func(t *testing.T) {
			bound := 20 * time.Second
			if image == "hangs" {
				bound = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), bound)
			defer cancel()
			var job VolumeJob
			job.Volume.Spec.Image = image
			if err := h.Volume(ctx, job, func(VolumeProgress) {}); !want(err) {
				t.Errorf("%v", err)
			}
		})
	}
}
