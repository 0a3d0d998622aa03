package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// idleFigures say what an idle connection costs in memory.
type idleFigures struct {
	Machine *machine   `json:"machine"`
	Cases   []idleCase `json:"cases"`
}

type idleCase struct {
	Name     string               `json:"name"`
	Conns    int                  `json:"connections"`
	GoalKiB  float64              `json:"goal_kib"`
	KiB      map[string][]float64 `json:"kib_per_connection"` // by proxy, a figure per round
	BeforeMB map[string][]float64 `json:"mib_before"`         // of the process that has served, without connections
	Gone     map[string]int       `json:"gone"`               // connections that were no longer there when they were asked again
}

const (
	idleRounds = 3
	settleTime = 3 * time.Second // between the last request and the look at the memory: whoever gives buffers back has done it
)

// runIdle measures each proxy, started afresh and warmed up, before and after so many connections have asked once and stayed.
func runIdle(s *stage, o options, m *machine) error {
	f := idleFigures{Machine: m, Cases: []idleCase{{Name: "plain", Conns: 15_000, GoalKiB: 1.5}, {Name: "TLS", Conns: 5_000, GoalKiB: 15}}}
	rounds := min(o.rounds, idleRounds)
	p := newProgress(len(f.Cases) * rounds)
	defer p.clear()
	for i := range f.Cases {
		c := &f.Cases[i]
		c.KiB, c.BeforeMB, c.Gone = map[string][]float64{}, map[string][]float64{}, map[string]int{}
		for round := range rounds {
			to := setting{name: fmt.Sprintf("idle %s %d", c.Name, round), threads: 1, files: files(), needs: needed}
			if err := s.set(to); err != nil {
				return err
			}
			for _, peer := range s.peers {
				p.show("memory of %d idle %s connections, round %d/%d, %s", c.Conns, c.Name, round+1, rounds, peer.name)
				before, kib, gone, err := s.idle(peer, *c)
				if err != nil {
					return fmt.Errorf("idle %s connections, %s: %w", c.Name, peer.name, err)
				}
				c.KiB[peer.name], c.BeforeMB[peer.name] = append(c.KiB[peer.name], kib), append(c.BeforeMB[peer.name], before)
				c.Gone[peer.name] += gone
			}
			p.done++
		}
	}
	p.clear()
	fmt.Printf("\n%s\n", f.table())
	if err := o.write("idle.json", f); err != nil {
		return err
	}
	return redraw(o.out)
}

// idle returns a proxy's memory in MiB without connections, and what each adds in KiB, and how many did not last.
func (s *stage) idle(p *peer, c idleCase) (before, kib float64, gone int, err error) {
	r := row{conns: 64, to: web, requests: []string{get("/b128")}, want: 128}
	if c.Name == "TLS" {
		r.to, r.tls = tlsECDSA, true
	}
	j := r.job(p, "")
	j.For = time.Second
	if _, err := s.run(p.name, j); err != nil {
		return 0, 0, 0, err
	}
	s.mu.Lock()
	proc := s.running[p.name]
	s.mu.Unlock()
	look := func() (int64, error) {
		time.Sleep(settleTime)
		pids, err := tree(proc.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		return memory(pids)
	}
	empty, err := look()
	if err != nil {
		return 0, 0, 0, err
	}
	j.Conns = c.Conns
	in, err := json.Marshal(j)
	if err != nil {
		return 0, 0, 0, err
	}
	cmd := exec.Command("/proc/self/exe", "hold")
	var said bytes.Buffer
	cmd.Stderr = &said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, 0, 0, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, 0, err
	}
	if err := start(cmd, s.loadCPUs()); err != nil {
		return 0, 0, 0, err
	}
	defer stop(cmd)
	if _, err := stdin.Write(in); err != nil {
		return 0, 0, 0, err
	}
	says := bufio.NewReader(stdout)
	if _, err := says.ReadString('\n'); err != nil {
		cmd.Wait()
		return 0, 0, 0, fmt.Errorf("%s", strings.TrimSpace(said.String()))
	}
	full, err := look()
	if err != nil {
		return 0, 0, 0, err
	}
	stdin.Close()
	line, err := says.ReadString('\n')
	if err == nil {
		gone, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return 0, 0, 0, fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return float64(empty) / (1 << 20), float64(full-empty) / 1024 / float64(c.Conns), gone, nil
}

func (f idleFigures) table() string {
	var b strings.Builder
	b.WriteString("| idle connections | HAProxy KiB each | skein KiB each (goal) | nginx KiB each | verdict |\n|---|---|---|---|---|\n")
	for _, c := range f.Cases {
		mid := func(proxy string) float64 { return median(c.KiB[proxy]) }
		verdict := "met"
		if mid("skein") > c.GoalKiB || c.Gone["skein"] > 0 {
			verdict = "missed"
		}
		fmt.Fprintf(&b, "| %d %s | %.2f | **%.2f** (<= %.1f) | %.2f | %s |\n", c.Conns, c.Name, mid("haproxy"), mid("skein"), c.GoalKiB, mid("nginx"), verdict)
	}
	b.WriteString("\nProportional set size of all of a proxy's processes, before and after that many connections have asked once and stayed; each is asked again\nafterwards.\n")
	return b.String()
}
