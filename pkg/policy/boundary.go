package policy

import (
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Sensitive tells why a path is one whose readers should be few and named, in
// words: secrets, keys, password files, the sockets of container runtimes. It is
// empty for any other path.
func Sensitive(path string) string {
	for _, s := range []struct{ prefix, why string }{
		{"/run/secrets/", "secrets of the pod"},
		{"/var/run/secrets/", "secrets of the pod"},
		{"/etc/shadow", "password hashes"},
		{"/etc/gshadow", "password hashes"},
		{"/etc/sudoers", "rights to become root"},
		{"/etc/ssl/private/", "private keys"},
		{"/etc/pki/tls/private/", "private keys"},
		{"/etc/ssh/", "keys of the SSH server"},
		{"/etc/kubernetes/", "credentials of the cluster"},
		{"/var/lib/kubelet/", "credentials of the cluster"},
		{"/run/docker", "a container runtime's socket"},
		{"/var/run/docker", "a container runtime's socket"},
		{"/run/containerd/", "a container runtime's socket"},
		{"/var/run/containerd/", "a container runtime's socket"},
		{"/run/crio/", "a container runtime's socket"},
		{"/var/run/crio/", "a container runtime's socket"},
	} {
		if strings.HasPrefix(path, s.prefix) || path+"/" == s.prefix {
			return s.why
		}
	}
	parts := strings.Split(path, "/")
	for _, part := range parts {
		switch part {
		case ".ssh", ".gnupg", ".aws", ".kube", ".docker", ".azure", ".gcloud", "secrets", "private":
			return "keys or credentials"
		}
	}
	name := parts[len(parts)-1]
	for _, suffix := range []string{".key", ".pem", ".p12", ".pfx", ".jks", ".keytab"} {
		if strings.HasSuffix(name, suffix) {
			return "keys or certificates"
		}
	}
	return ""
}

// Boundary tells why dir, which ends in a slash, must not be opened as a whole
// to the given access, in words, however many of the names in it were used. It
// is empty where that may be done.
func Boundary(dir string, access behavior.Access) string {
	if why := Sensitive(dir); why != "" {
		return why
	}
	switch dir {
	case "/", "/etc/", "/usr/", "/var/", "/run/", "/var/run/", "/dev/", "/home/", "/root/", "/boot/", "/opt/", "/srv/", "/mnt/":
		return "a folder of the system"
	}
	for _, tree := range []string{"/proc/", "/sys/", "/boot/"} {
		if strings.HasPrefix(dir, tree) {
			return "a view of the kernel"
		}
	}
	if access&(behavior.Write|behavior.Create) == 0 {
		return ""
	}
	if strings.HasPrefix(dir, "/etc/") || strings.HasPrefix(dir, "/usr/") {
		return "programs and their configuration"
	}
	isCode := func(part string) bool {
		return slices.Contains([]string{"bin", "sbin", "lib", "lib32", "lib64", "libexec"}, part)
	}
	parts := strings.Split(strings.Trim(dir, "/"), "/")
	if len(parts) > 0 && parts[0] == "var" { // /var/lib holds data
		parts = parts[2:]
	}
	if slices.ContainsFunc(parts, isCode) {
		return "programs and libraries"
	}
	return ""
}
