package node

import (
	"fmt"
	"io"
	"os"

	"github.com/skeinlb/skein/config"
)

// ReadFile reads a file that an operator names: a configuration, a certificate. What is larger than any of them is refused before
// it is in memory, so that a disk's image, or a device without an end, is a mistake like others.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > config.MaxSize {
		return nil, fmt.Errorf("%s is larger than %d MiB", path, config.MaxSize>>20)
	}
	return text, nil
}
