package load

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skeinlb/skein/internal/lab"
)

// Origin and load want a process for themselves; this test binary is one when it is told so.
func TestMain(m *testing.M) {
	switch os.Getenv("LOAD_TEST_ROLE") {
	case "origin":
		log.Fatal(Serve(freePort(), func() {}))
	case "load":
		var j Job
		if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
			log.Fatal(err)
		}
		r, err := Run(j)
		if err != nil {
			log.Fatal(err)
		}
		json.NewEncoder(os.Stdout).Encode(r)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// freePort is one that nobody has now; the origin prints it.
func freePort() int {
	port, err := lab.FreePort()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(port)
	return port
}

func startOrigin(t *testing.T) (addr string, pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOAD_TEST_ROLE=origin")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr = "127.0.0.1:" + strings.TrimSpace(line)
	for { // it listens in a moment
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr, cmd.Process.Pid
		}
		if cmd.ProcessState != nil {
			t.Fatal("the origin has ended")
		}
	}
}

func do(t *testing.T, j Job) (Result, error) {
	t.Helper()
	in, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOAD_TEST_ROLE=load")
	cmd.Stdin = bytes.NewReader(in)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return Result{}, fmt.Errorf("%w: %s", err, said.String())
	}
	var r Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r, nil
}

func head(target string, more ...string) [][]byte {
	return [][]byte{[]byte("GET " + target + " HTTP/1.1\r\nHost: a\r\n" + strings.Join(append(more, ""), "\r\n") + "\r\n")}
}

func post(target string, n int) [][]byte {
	return [][]byte{fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", target, n)}
}

// Every way of asking, in a closed loop and at a rate, straight from the origin: every answer is whole, none is counted twice, and
// the origin's time is on the bill.
func TestEveryWayOfAskingIsAnswered(t *testing.T) {
	addr, pid := startOrigin(t)
	for name, j := range map[string]Job{
		"small":           {Requests: head("/b128"), Want: 128, Conns: 8},
		"in turn":         {Requests: append(head("/x/b100"), head("/y/b100?q=1")...), Want: 100, Conns: 3},
		"empty":           {Requests: head("/b0"), Want: 0, Conns: 1},
		"as one send":     {Requests: head("/b16384"), Want: 16 << 10, Conns: 4},
		"by sendfile":     {Requests: head("/b65536"), Want: 64 << 10, Conns: 4},
		"large":           {Requests: head("/b1048576"), Want: 1 << 20, Conns: 4},
		"upload":          {Requests: post("/b128", 1<<20), Want: 128, Upload: 1 << 20, Conns: 4},
		"small upload":    {Requests: post("/b128", 10), Want: 128, Upload: 10, Conns: 4},
		"connections":     {Requests: head("/b128?close"), Want: 128, Conns: 8, Close: true},
		"large and close": {Requests: head("/b1048576?close"), Want: 1 << 20, Conns: 2, Close: true},
	} {
		for _, rate := range []float64{0, 200} {
			t.Run(fmt.Sprintf("%s at %v", name, rate), func(t *testing.T) {
				j := j
				j.Addr, j.Rate, j.Warm, j.For = addr, rate, 20*time.Millisecond, 100*time.Millisecond
				j.Watch = map[string][]int{"origin": {pid}}
				if _, err := Check(j); err != nil {
					t.Fatal(err)
				}
				r, err := do(t, j)
				if err != nil {
					t.Fatal(err)
				}
				if r.Errors > 0 || r.Late > 0 || r.P99us < r.P50us || r.MaxUs < r.P99us || r.P50us == 0 {
					t.Errorf("%+v", r)
				}
				if r.Seconds < .1 || r.CPU["origin"] <= 0 || r.CPU["load"] <= 0 {
					t.Errorf("on the bill: %+v", r)
				}
				if rate == 0 && r.Requests == 0 || rate > 0 && r.Requests > uint64(rate*j.For.Seconds())+1 {
					t.Errorf("%d answers in %v s at a rate of %v", r.Requests, r.Seconds, rate)
				}
			})
		}
	}
}

// A server that stands still for a moment has kept all those waiting whose requests were due meanwhile, although one connection can
// only ask one thing. In a closed loop the same pause is a single slow answer and drowns among the others.
func TestAStallIsChargedToAllThatWereDue(t *testing.T) {
	const pause = 300 * time.Millisecond
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 100 {
			time.Sleep(pause) // what is measured
		}
		w.Write([]byte("hello"))
	}))
	defer s.Close()
	j := Job{Addr: s.Listener.Addr().String(), Requests: head("/"), Want: 5, Conns: 1, Rate: 500, For: 700 * time.Millisecond}
	r, err := do(t, j)
	if err != nil {
		t.Fatal(err)
	}
	// 350 requests, 150 of them due within the pause.
	if least := float64(pause.Microseconds()); r.MaxUs < least || r.P90us < least/3 {
		t.Errorf("p90 %v us, longest %v us after a pause of %v: %+v", r.P90us, r.MaxUs, pause, r)
	}
}

// What is no answer is an error, whatever the reason, and is not counted as an answer.
func TestWhatIsNoAnswerIsAnError(t *testing.T) {
	for name, reply := range map[string]string{
		"another status": "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello",
		"another length": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!",
		"no length":      "HTTP/1.1 200 OK\r\n\r\nhello",
		"cut off":        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
		"too much":       "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!",
		"nothing":        "",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						http.ReadRequest(bufio.NewReader(c))
						io.WriteString(c, reply)
						c.Close()
					}()
				}
			}()
			r, err := do(t, Job{Addr: l.Addr().String(), Requests: head("/"), Want: 5, Conns: 2, Rate: 100, For: 100 * time.Millisecond})
			if err == nil && (r.Requests > 0 || r.Errors == 0) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		w.Write(bytes.Repeat([]byte("x"), 100_000))
	}))
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	for name, j := range map[string]Job{
		"keep-alive": {Requests: head("/"), Conns: 4},
		"handshakes": {Requests: head("/", "Connection: close"), Conns: 4, Close: true},
		"resumed":    {Requests: head("/", "Connection: close"), Conns: 4, Close: true, Resume: true},
	} {
		for _, rate := range []float64{0, 50} {
			t.Run(fmt.Sprintf("%s at %v", name, rate), func(t *testing.T) {
				j := j
				j.Addr, j.Want, j.TLS, j.Rate, j.Warm, j.For = s.Listener.Addr().String(), 100_000, true, rate, 100*time.Millisecond, 200*time.Millisecond
				if _, err := Check(j); err != nil {
					t.Fatal(err)
				}
				r, err := do(t, j)
				if err != nil {
					t.Fatal(err)
				}
				if r.Errors > 0 || r.P50us == 0 {
					t.Errorf("%+v", r)
				}
				if got := r.Resumed > 0; got != j.Resume && r.Requests > 0 {
					t.Errorf("%d of %d resumed", r.Resumed, r.Requests)
				}
			})
		}
	}
}

func TestCheckReadsBodies(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "SERVER", Value: "s1"})
		io.WriteString(w, r.URL.Query().Get("say"))
	}))
	defer s.Close()
	for body, ok := range map[string]bool{"xxxxx": true, "xxxx": false, "xxxxy": false} {
		cookie, err := Check(Job{Addr: s.Listener.Addr().String(), Requests: head("/?say=" + body), Want: 5})
		if (err == nil) != ok || ok && cookie != "SERVER=s1" {
			t.Errorf("%s: %q, %v", body, cookie, err)
		}
	}
}

func TestHeldConnectionsAreKept(t *testing.T) {
	addr, _ := startOrigin(t)
	j := Job{Addr: addr, Requests: head("/b128"), Want: 128, Conns: 20}
	asked := 0
	err := Hold(j, func(ask func(int) error) error {
		for i := range j.Conns {
			if err := ask(i); err != nil {
				return err
			}
			asked++
		}
		return nil
	})
	if err != nil || asked != j.Conns {
		t.Errorf("%d of %d asked again: %v", asked, j.Conns, err)
	}
}

func TestBucketsAreNarrowAndCoverEverything(t *testing.T) {
	last := -1
	for v := uint64(1); v < 1<<62; v += 1 + v/300 {
		i := bucketOf(v)
		if i != last && i != last+1 && v > 256 {
			t.Fatalf("bucket %d of %d follows %d", i, v, last)
		}
		if last = i; topOf(i) < v || topOf(i) > v+v/128 {
			t.Fatalf("%d lies in a bucket up to %d", v, topOf(i))
		}
	}
	var h hist
	h.add(1<<63 - 1)
	h.add(-1)
	for v := range 1000 {
		h.add(int64(v) * 1000)
	}
	for q, want := range map[float64]uint64{0: 0, .5: 500_000, .99: 990_000} {
		if got := h.quantile(q); got < want*99/100 || got > want*101/100 {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
}

func TestCPUTimeIsOfAProcessThatIsThere(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	own, err := CPUTime(0)
	if err != nil || own < before {
		t.Errorf("%v s, then %v s: %v", before, own, err)
	}
	if _, err := CPUTime(cmd.Process.Pid); err == nil {
		t.Error("a process that is gone has a clock")
	}
}
