package lab

import "sync"

// limitedBuffer keeps the first megabyte of what is written to it. The zero value is empty and ready.
type limitedBuffer struct {
	mu sync.Mutex
	// mu guards the following.
	b []byte
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p[:min(len(p), max(0, 1<<20-len(l.b)))]...)
	return len(p), nil
}

func (l *limitedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}
