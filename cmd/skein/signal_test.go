package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startRun builds the binary and has it serve a file: two answers of its own, and an access log beside the file.
func startRun(t *testing.T, flags ...string) (cmd *exec.Cmd, url, dir string) {
	t.Helper()
	dir = t.TempDir()
	binary := filepath.Join(dir, "skein")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build skein: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	text := fmt.Sprintf(`log { to = %q }
frontend "hello" {
  bind = ["127.0.0.1"]
  http = %d
  route "all" {
    respond { status = 204 }
  }
}
`, filepath.Join(dir, "access.log"), port)
	file := filepath.Join(dir, "edge.hcl")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(binary, append([]string{"run", file}, flags...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	lines := bufio.NewScanner(stderr)
	for serving := false; !serving; serving = strings.Contains(lines.Text(), "serving") {
		if !lines.Scan() {
			t.Fatal("skein run ended")
		}
	}
	go io.Copy(io.Discard, stderr)
	return cmd, fmt.Sprintf("http://127.0.0.1:%d", port), dir
}

func ask(t *testing.T, url string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// holds waits until a file has text.
func holds(t *testing.T, path, text string) {
	t.Helper()
	var b []byte
	for end := time.Now().Add(10 * time.Second); !strings.Contains(string(b), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s holds %q, and not %q", path, b, text)
		}
		b, _ = os.ReadFile(path)
	}
}

// What logrotate does: the file is moved away, and a signal has a new one opened. Neither signal ends the process.
func TestSignalsOpenTheAccessLogAnew(t *testing.T) {
	cmd, url, dir := startRun(t)
	log := filepath.Join(dir, "access.log")
	ask(t, url+"/first")
	holds(t, log, "/first")
	for i, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGHUP} {
		old := fmt.Sprintf("%s.%d", log, i+1)
		if err := os.Rename(log, old); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(log); err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%v did not have the log opened anew", sig)
			}
		}
		ask(t, fmt.Sprintf("%s/after/%d", url, i))
		holds(t, log, fmt.Sprintf("/after/%d", i))
		if b, _ := os.ReadFile(old); strings.Contains(string(b), fmt.Sprintf("/after/%d", i)) {
			t.Errorf("after %v the old file was written: %s", sig, b)
		}
	}
}

func TestRunShowsMetrics(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	_, url, _ := startRun(t, "--metrics", at)
	ask(t, url+"/")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var text []byte
		if resp, err := http.Get("http://" + at + "/metrics"); err == nil {
			text, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if strings.Contains(string(text), `skein_frontend_ends_total{cause="none",frontend="hello"} 1`) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the request is not shown:\n%s", text)
		}
	}
}
