package cluster

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the supervisor that Up starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == SuperviseCommand {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := Supervise(ctx, os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestNewRefuses(t *testing.T) {
	for what, args := range map[string][2]string{
		"a name with a slash":                       {"/tmp/c", "a/b"},
		"a name that is too long for a link":        {"/tmp/c", strings.Repeat("a", 21)},
		"a name that starts with a dash":            {"/tmp/c", "-rf"},
		"a folder that nodes have one of their own": {"/var/lib/clusters", ""},
		"a folder in another such":                  {"/run", ""},
	} {
		t.Run(what, func(t *testing.T) {
			if c, err := New(args[0], args[1]); err == nil {
				t.Errorf("New(%q) = %+v, want an error", args, c)
			}
		})
	}
}

func TestClustersOfDifferentNamesHaveDifferentFilesAndGroups(t *testing.T) {
	a, b := mustNew(t, "/tmp/c", "one"), mustNew(t, "/tmp/c", "two")
	for _, c := range []*Cluster{b, mustNew(t, "/tmp/d", "one"), mustNew(t, "", "one")} {
		if c.cgroup() == a.cgroup() || c.dir() == a.dir() {
			t.Errorf("%+v and %+v share what should be their own", a, c)
		}
	}
}

func TestADeepFolderIsRefusedBeforeAnythingIsMade(t *testing.T) {
	c := mustNew(t, "/tmp/"+strings.Repeat("deep/", 20), "")
	var hint *HintError
	if err := c.checkSocketPath(); !errors.As(err, &hint) {
		t.Errorf("error = %v, want one with a hint", err)
	}
}

func TestTheReportedVersionIsTheModules(t *testing.T) {
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "k8s.io/kubernetes " + kubernetesVersion + "\n"; !strings.Contains(string(data), want) {
		t.Errorf("go.mod does not require %q", want)
	}
}

func TestCiliumSaysTheVersionThatItIsCompiledFrom(t *testing.T) {
	data, err := os.ReadFile("cilium/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := ciliumModule + " v" + ciliumVersion + " "; !strings.Contains(string(data), want) {
		t.Errorf("cilium/go.mod does not require %q", want)
	}
}

func TestAToolIsCompiledAgainOnlyWhenItsSourcesChanged(t *testing.T) {
	source := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(source, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module m\n")
	write("go.sum", "")
	write("kube/main.go", "package main\n")
	write("other/main.go", "package main\n")
	key := func(version string) string {
		k, err := tool{name: "kube", dir: ".", pkg: "kube"}.key(source, version)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key("go1")
	write("other/main.go", "package main // changed\n")
	if key("go1") != first {
		t.Error("a package that is not its own changed the key")
	}
	if key("go2") == first {
		t.Error("another compiler did not change the key")
	}
	for _, name := range []string{"go.mod", "go.sum", "kube/main.go"} {
		before := key("go1")
		write(name, "// changed\n")
		if key("go1") == before {
			t.Errorf("a changed %s did not change the key", name)
		}
	}
}

func TestFindSourceFindsThisModuleFromBelowAndFromTheRepository(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{".", "config", "../..", ".."} {
		if got, err := FindSource(from); err != nil || got != here {
			t.Errorf("FindSource(%q) = %q, %v; want %q", from, got, err, here)
		}
	}
	var hint *HintError
	if _, err := FindSource(t.TempDir()); !errors.As(err, &hint) {
		t.Errorf("error elsewhere = %v, want one with a hint", err)
	}
}

func TestKubeconfigsAreSignedByTheClustersAuthority(t *testing.T) {
	c := mustNew(t, t.TempDir(), "")
	if err := os.MkdirAll(c.pkiDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := c.writePKI(1, "https://127.0.0.1:1", now); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]struct{ name, server string }{
		c.Kubeconfig(): {"admin", "https://127.0.0.1:1"},
		filepath.Join(c.pkiDir(), "node0.kubeconfig"): {"system:node:node0", "https://172.30.0.1:6443"},
	} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var config struct {
			Clusters []struct {
				Cluster struct {
					Server string
					CA     []byte `json:"certificate-authority-data"`
				}
			}
			Users []struct {
				User struct {
					Cert []byte `json:"client-certificate-data"`
				}
			}
		}
		if err := json.Unmarshal(data, &config); err != nil {
			t.Fatal(err)
		}
		if got := config.Clusters[0].Cluster.Server; got != want.server {
			t.Errorf("%s names %s, want %s", file, got, want.server)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(config.Clusters[0].Cluster.CA) {
			t.Fatalf("%s has no authority", file)
		}
		cert := parseCert(t, config.Users[0].User.Cert)
		if cert.Subject.CommonName != want.name {
			t.Errorf("%s is of %s, want %s", file, cert.Subject.CommonName, want.name)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestKillEndsDaemonsOfTheGroupAndNothingElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cgroups can be made by root only")
	}
	groups, err := findCgroups()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	group := fmt.Sprintf("cluster-killtest-%d", os.Getpid())
	if err := groups.make(group, 1); err != nil {
		t.Skipf("this machine lets us make no cgroups: %v", err)
	}
	t.Cleanup(func() {
		if err := groups.remove(context.Background(), group); err != nil {
			t.Error(err)
		}
	})
	// The shell puts itself into the group and leaves a daemon behind.
	script := fmt.Sprintf("echo $$ > %s/%s/node0-system/cgroup.procs; setsid sleep 1000 </dev/null >/dev/null 2>&1 &", groups.tracking, group)
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	if err := poll(ctx, 10*time.Millisecond, func() (bool, error) {
		pids, err := groups.processes(group)
		return len(pids) > 0, err
	}); err != nil {
		t.Fatalf("no process in the group: %v", err)
	}
	if err := groups.kill(ctx, group); err != nil {
		t.Fatal(err)
	}
	if pids, err := groups.processes(group); err != nil || len(pids) > 0 {
		t.Errorf("processes %v are left, error %v", pids, err)
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a process outside of the group was ended: %v", err)
	}
}

func TestOnlyOneUpCanClaimACluster(t *testing.T) {
	c := mustNew(t, t.TempDir(), "claimed")
	if err := c.claim(); err != nil {
		t.Fatal(err)
	}
	var hint *HintError
	if err := c.claim(); !errors.Is(err, ErrUp) || !errors.As(err, &hint) {
		t.Errorf("a second claim: %v, want %v with a hint", err, ErrUp)
	}
}

func TestDownOfAClusterThatIsNotThereIsNoError(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may stop clusters")
	}
	if err := mustNew(t, t.TempDir(), "nothere").Down(t.Context()); err != nil {
		t.Error(err)
	}
}

func mustNew(t *testing.T, root, name string) *Cluster {
	t.Helper()
	c, err := New(root, name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parseCert(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%q is no PEM", data)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestStaticTellsAProgramThatNeedsLibraries(t *testing.T) {
	shell, err := findProgram("bash")
	if err != nil {
		t.Fatal(err)
	}
	if static(shell) {
		t.Errorf("%s is said to be static", shell)
	}
}
