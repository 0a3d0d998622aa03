package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLabLeavesNothingBehind starts this test program once more, lets it build a world with processes in it, and kills it the
// hard way.
func TestLabLeavesNothingBehind(t *testing.T) {
	if enterErr != nil {
		t.Skipf("no lab on this machine: %v", enterErr)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperHangsWithAWorld$", "-test.v")
	cmd.Env = append(os.Environ(), "LAB_HELPER=1")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var inode uint64
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, n, ok := strings.Cut(lines.Text(), "namespace "); ok {
			inode, err = strconv.ParseUint(n, 10, 64)
			must(t, err)
			break
		}
	}
	pids, err := processesIn([]uint64{inode})
	if err != nil || len(pids) == 0 {
		t.Errorf("the helper's world has the processes %v, %v; want some", pids, err)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	within(t, "all processes of the dead lab are gone", func() bool {
		pids, err := processesIn([]uint64{inode})
		return len(pids) == 0 && err == nil
	})
}

func TestHelperHangsWithAWorld(t *testing.T) {
	if os.Getenv("LAB_HELPER") == "" {
		return // only a helper of TestLabLeavesNothingBehind
	}
	_, h := world(t, "a")
	must(t, start(t, h[0], "setsid sleep 600 & setsid sleep 600 & wait"))
	within(t, "the processes run", func() bool { pids, _ := h[0].Processes(); return len(pids) >= 3 })
	fmt.Printf("namespace %d\n", h[0].ns().inode)
	time.Sleep(time.Minute)
}

// TestAsAnOrdinaryUser runs the most telling tests once more without privileges, in a user namespace.
func TestAsAnOrdinaryUser(t *testing.T) {
	switch {
	case os.Getenv("LAB_ORDINARY") != "":
		return
	case os.Getuid() != 0:
		t.Skip("the other tests run as an ordinary user already")
	case enterErr != nil:
		t.Skipf("no lab on this machine: %v", enterErr)
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^(TestCuts|TestHosts|TestWatch|TestPowerOff|TestOneWay)")
	cmd.Env = append(os.Environ(), "LAB_ORDINARY=1", "HOME=/", "TMPDIR=/tmp")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil && bytes.Contains(out, []byte("no lab on this machine")) {
		t.Skipf("an ordinary user has no labs here:\n%s", out)
	}
	if err != nil || bytes.Count(out, []byte("--- PASS")) < 5 {
		t.Errorf("as uid 65534: %v\n%s", err, out)
	}
}

func TestHintNamesTheSettingThatForbids(t *testing.T) {
	root := t.TempDir()
	if h := hint(root); !strings.Contains(h, "run as root") {
		t.Errorf("with no known setting in the way: %q", h)
	}
	for _, c := range []struct{ path, value, want string }{
		{"proc/sys/user/max_user_namespaces", "15000\n", "; run as root"},
		{"proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"proc/sys/kernel/unprivileged_userns_clone", "0\n", "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"proc/sys/user/max_user_namespaces", "0\n", "sysctl -w user.max_user_namespaces=15000"},
	} {
		path := filepath.Join(root, c.path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(c.value), 0o644))
		if h := hint(root); !strings.Contains(h, c.want) {
			t.Errorf("with %s = %q the hint is %q, want %q in it", c.path, c.value, h, c.want)
		}
	}
}
