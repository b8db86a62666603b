package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hardApp is an application that needs little: it runs as root, writes below /tmp,
// reads a volume, and uses one capability.
const hardApp = `apiVersion: v1
kind: Namespace
metadata: {name: hard, labels: {team: a}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: hard}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: localhost/hard:1
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "while true; do date > /tmp/now && chown 1000:1000 /tmp/now && ls /in && mv /tmp/now /tmp/seen || exit 1; sleep 1; done"]
        readinessProbe: {exec: {command: [cat, /tmp/seen]}, periodSeconds: 1}
        volumeMounts: [{name: in, mountPath: /in}]
      volumes:
      - {name: in, emptyDir: {}}
`

// hardPod is a pod of the application's labels with something else in its
// specification.
func hardPod(security string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: other, namespace: hard, labels: {app: app}}
spec:
%s
  containers: [{name: app, image: "localhost/hard:1", command: [sleep, "60"]}]
`, security)
}

// What hardening promises, by a real API server, kubelet and runtime: in audit it
// only warns, in deny the application goes on with less, and an attacker has less.
func TestAHardenedApplicationWorksAndItsAttackerDoesNot(t *testing.T) {
	w := needCluster(t)
	dir, repository := w.workspace(t)
	w.loadHard(t, dir)
	app, checkout := filepath.Join(dir, "app"), filepath.Join(dir, "fleet")
	tree := filepath.Join(checkout, "autopolicy/hard")
	if err := os.MkdirAll(app, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		file := filepath.Join(app, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("app.yaml", hardApp)
	write("kustomization.yaml", "resources: [app.yaml]\n")
	t.Cleanup(func() {
		w.command("kubectl", "delete", "-k", tree, "--ignore-not-found", "--wait=false").Run()
		w.command("kubectl", "delete", "namespace", "hard", "--ignore-not-found").Run()
	})
	w.kubectl(t, "apply", "-k", app)
	w.kubectl(t, "-n", "hard", "rollout", "status", "deployment/app", "--timeout=120s")
	if out, err := w.inApp("touch /bin/planted && rm /bin/planted && mknod /tmp/disk b 8 0 && rm /tmp/disk"); err != nil {
		t.Fatalf("before it is hardened an attacker can do this: %v\n%s", err, out)
	}

	engines := []string{"--engines", "podsecurity,seccomp"}
	w.plugin(t, dir, append([]string{"discover", "-n", "hard", "--duration", "30s", "--restart", "-y"}, engines...)...).wantsCode(t, 0)
	git(t, "clone", "-q", repository, checkout)
	patch, err := os.ReadFile(filepath.Join(tree, "components/hardening/deployment-app/deny.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the patch:\n%s", patch)
	for _, want := range []string{"- CHOWN\n", "- ALL\n", "readOnlyRootFilesystem: true", "mountPath: /tmp\n", "readOnly: true", "allowPrivilegeEscalation: false", "RuntimeDefault", "capability CHOWN: by /busybox in chown"} {
		if !strings.Contains(string(patch), want) {
			t.Errorf("the patch has no %q", want)
		}
	}
	write("kustomization.yaml", "resources: [app.yaml]\ncomponents: [../fleet/autopolicy/hard/components/hardening]\n")

	// Loss is not what this is about: programs that end at once take names with them.
	record := filepath.Join(tree, "rollout.yaml")
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(record, []byte(strings.Replace(string(text), "coverage: complete", "coverage: any", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, "-C", checkout, "-c", "user.name=Test", "-c", "user.email=test@example.com", "commit", "-qam", "Take any coverage")
	git(t, "-C", checkout, "push", "-q")

	w.kubectl(t, "apply", "-k", tree)
	w.kubectl(t, "apply", "-k", app)
	eventually(t, time.Minute, "a warning about a pod that does more", func() bool {
		out := w.try(t, write("pod.yaml", hardPod("  hostPID: true")))
		return strings.Contains(out, "Warning: ") && strings.Contains(out, "shares hostPID with the node") && strings.Contains(out, "created")
	})
	if out := w.try(t, write("pod.yaml", hardPod(""))); strings.Contains(out, "ValidatingAdmissionPolicy") || !strings.Contains(out, "created") {
		t.Errorf("a pod as the application's is: %s", out)
	}
	if out, err := w.inApp("touch /bin/planted && rm /bin/planted"); err != nil {
		t.Errorf("stage audit takes something away: %v\n%s", err, out)
	}

	w.plugin(t, dir, append([]string{"promote", "-n", "hard", "--to=deny", "--duration", "25s"}, engines...)...).wantsCode(t, 0)
	git(t, "-C", checkout, "pull", "-q")
	w.kubectl(t, "apply", "-k", tree)
	w.kubectl(t, "apply", "-k", app)
	w.kubectl(t, "-n", "hard", "rollout", "status", "deployment/app", "--timeout=120s")
	if out, err := w.inApp("touch /tmp/mine && cat /tmp/seen && rm /tmp/mine"); err != nil {
		t.Errorf("the application's own folder: %v\n%s", err, out)
	}
	for name, attack := range map[string]string{
		"a program in the image": "touch /bin/planted",
		"a file in a volume":     "touch /in/planted",
		"a device of the node":   "mknod /tmp/disk b 8 0",
		"another root":           "chroot / true",
		"a namespace of its own": "unshare -U true",
	} {
		if out, err := w.inApp(attack); err == nil {
			t.Errorf("%s: an attacker can still do %q: %s", name, attack, out)
		}
	}
	if out := w.try(t, write("pod.yaml", strings.Replace(hardPod("  hostNetwork: true"), "app: app", "app: another", 1))); !strings.Contains(out, `violates PodSecurity "baseline:latest"`) {
		t.Errorf("a pod of nobody's, by the namespace's labels: %s", out)
	}

	// Hardened pods were seen now, and so new ones have to be.
	w.plugin(t, dir, append([]string{"discover", "-n", "hard", "--duration", "20s", "--relearn"}, engines...)...).wantsCode(t, 0)
	git(t, "-C", checkout, "pull", "-q")
	w.kubectl(t, "apply", "-k", tree)
	eventually(t, time.Minute, "a pod that is not hardened to be refused", func() bool {
		return strings.Contains(w.try(t, write("pod.yaml", hardPod(""))), "denied request: pod of deployment/app")
	})
	w.kubectl(t, "-n", "hard", "rollout", "restart", "deployment/app")
	w.kubectl(t, "-n", "hard", "rollout", "status", "deployment/app", "--timeout=120s")
	if team := w.kubectl(t, "get", "namespace", "hard", "-o", "jsonpath={.metadata.labels.team}"); team != "a" {
		t.Errorf("the namespace's own label is %q", team)
	}
}

// try asks the API server what it would say to an object, and gives all it says.
func (w *world) try(t *testing.T, file string) string {
	t.Helper()
	out, _ := w.command("kubectl", "create", "--dry-run=server", "-f", file).CombinedOutput() // a refusal is an answer
	return string(out)
}

func (w *world) inApp(command string) (string, error) {
	out, err := w.command("kubectl", "-n", "hard", "exec", "deployment/app", "--", "sh", "-c", command).CombinedOutput()
	return string(out), err
}

// loadHard makes an image of a busybox with a folder for temporary files.
func (w *world) loadHard(t *testing.T, dir string) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	keep := filepath.Join(dir, "keep")
	if err := os.WriteFile(keep, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"image", filepath.Join(dir, "hard.tar"), "localhost/hard:1", "--binary=" + busybox, "--add=" + keep + ":/tmp/.keep", "--add=" + keep + ":/in/.keep"}
	for _, applet := range strings.Fields("sh cat date chown mv sleep touch rm mknod chroot unshare mkdir chmod su ls true") {
		args = append(args, "--link=/busybox:/bin/"+applet)
	}
	for _, step := range [][]string{args, {"load", "--name=" + w.name, filepath.Join(dir, "hard.tar")}} {
		if out, err := w.command(w.cluster, step...).CombinedOutput(); err != nil {
			t.Fatalf("cluster %s: %v\n%s", step[0], err, out)
		}
	}
}
