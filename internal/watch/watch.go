// Package watch holds the newest value of something and wakes whoever waits for the next one.
//
// It carries state, not events: a slow reader skips values and is late, never wrong. It is the only way in which skein's
// packages hear of one another, and internal/node is the only place where they are connected.
package watch

import (
	"context"
	"sync"
)

// Value is the newest T. The zero Value holds the zero T and is ready for use; it must not be copied. Any goroutine may call
// any method.
type Value[T any] struct {
	mu sync.Mutex
	// mu guards the following.
	v    T
	next chan struct{} // closed by the next Set; nil until somebody waits
}

// Set publishes v and wakes all who wait.
func (w *Value[T]) Set(v T) {
	w.mu.Lock()
	w.v = v
	if w.next != nil {
		close(w.next)
		w.next = nil
	}
	w.mu.Unlock()
}

// Update publishes what f makes of the current value, as one step against other writers. f must not block.
func (w *Value[T]) Update(f func(T) T) {
	w.mu.Lock()
	w.v = f(w.v)
	if w.next != nil {
		close(w.next)
		w.next = nil
	}
	w.mu.Unlock()
}

// Get returns the newest value.
func (w *Value[T]) Get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.v
}

// Watch returns the newest value and a channel that is closed when a newer one exists.
func (w *Value[T]) Watch() (T, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		w.next = make(chan struct{})
	}
	return w.v, w.next
}

// Wait returns the first value, the current one included, for which ok is true. It returns ctx's error when ctx ends first,
// with the newest value.
func (w *Value[T]) Wait(ctx context.Context, ok func(T) bool) (T, error) {
	for {
		v, next := w.Watch()
		if ok(v) {
			return v, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return v, context.Cause(ctx)
		}
	}
}

// Each calls f with the current value and then with every newer one (a value may be skipped when f is slow) until ctx ends.
func (w *Value[T]) Each(ctx context.Context, f func(T)) {
	for {
		v, next := w.Watch()
		f(v)
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}
