package kubearmor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

var web = engine.Subject{
	Subject: behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: "web"},
	Labels:  map[string]string{"app": "web"},
}

// objects reads YAML documents as a kustomization would build them.
func objects(t testing.TB, text string) []engine.Object {
	t.Helper()
	var list []engine.Object
	for doc := range strings.SplitSeq(text, "---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		data, err := yaml.YAMLToJSONStrict([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		var meta struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
		}
		if err := json.Unmarshal(data, &meta); err != nil {
			t.Fatal(err)
		}
		list = append(list, engine.Object{APIVersion: meta.APIVersion, Kind: meta.Kind, Namespace: meta.Metadata.Namespace, Name: meta.Metadata.Name, JSON: data})
	}
	return list
}

// ksp is a policy in the namespace of web with the rest of its spec.
func ksp(name, spec string) string {
	indented := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(spec, "\n"), "\n"), "\n", "\n  ")
	return fmt.Sprintf("---\napiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: %s, namespace: shop}\nspec:\n  %s\n", name, indented)
}

// namespace is web's with all postures set.
func namespace(posture string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {%[1]s: %[4]s, %[2]s: %[4]s, %[3]s: %[4]s}}\n---\n",
		kubearmor.FilePosture, kubearmor.NetworkPosture, kubearmor.CapabilitiesPosture, posture)
}

func parse(t testing.TB, text string) engine.Judge {
	t.Helper()
	j, err := kubearmor.Engine{}.Parse(objects(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func run(parent, path string) behavior.Fact {
	return behavior.Fact{Kind: behavior.Process, Parent: parent, Path: path}
}

func open(exe, path string, access behavior.Access) behavior.Fact {
	return behavior.Fact{Kind: behavior.File, Exe: exe, Path: path, Access: access}
}

func change(exe, path string, op behavior.Operation) behavior.Fact {
	return behavior.Fact{Kind: behavior.File, Exe: exe, Path: path, Access: behavior.Write, Operation: op}
}

func script(parent, path, interpreter string) behavior.Fact {
	return behavior.Fact{Kind: behavior.Process, Parent: parent, Path: path, Interpreter: interpreter}
}

func dial(exe, protocol string) behavior.Fact {
	return behavior.Fact{Kind: behavior.Network, Exe: exe, Direction: behavior.Egress, Protocol: protocol, Port: 1}
}

func use(exe, capability string) behavior.Fact {
	return behavior.Fact{Kind: behavior.Capability, Exe: exe, Name: capability}
}

const (
	r  = behavior.Read
	w  = behavior.Write
	rw = behavior.Read | behavior.Write
)

func TestJudgeDecidesAsTheEnforcerDoes(t *testing.T) {
	block, audit := namespace("block"), namespace("audit")
	long := "/" + strings.Repeat("a", 198) // 199 bytes
	deep := "/" + strings.Repeat("d", 62) + "/"
	for _, tt := range []struct {
		name  string
		given string
		fact  behavior.Fact
		want  engine.Decision
	}{
		{"a symlink in a rule never matches", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /bin/sh}]}"), run("", "/usr/bin/dash"), engine.Denied},
		{"a resolved path covers its symlinks", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /usr/bin/dash}]}"), run("", "/usr/bin/dash"), engine.Allowed},
		{"a script without a rule is denied though its interpreter has one", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /usr/bin/dash}]}"), run("", "/start.sh"), engine.Denied},
		{"a script whose interpreter has no rule is denied", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /start.sh}]}"), script("", "/start.sh", "/usr/bin/dash"), engine.Denied},
		{"a script with a rule for it and for its interpreter works", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /start.sh}, {path: /usr/bin/dash}]}"), script("", "/start.sh", "/usr/bin/dash"), engine.Allowed},
		{"a script's interpreter has the parent of the script", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /start.sh}, {path: /usr/bin/dash, fromSource: [{path: /a}]}]}"), script("/b", "/start.sh", "/usr/bin/dash"), engine.Denied},
		{"a Block of the interpreter blocks its scripts", ksp("p", "action: Block\nprocess: {matchPaths: [{path: /usr/bin/dash}]}"), script("", "/start.sh", "/usr/bin/dash"), engine.Denied},
		{"a source is no grandparent", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /c, fromSource: [{path: /a}]}, {path: /b, fromSource: [{path: /a}]}]}"), run("/b", "/c"), engine.Denied},
		{"a source that is a symlink matches nothing", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /b, fromSource: [{path: /bin/sh}]}]}"), run("/usr/bin/dash", "/b"), engine.Denied},
		{"a network source allows its executable", block + ksp("p", "action: Allow\nnetwork: {matchProtocols: [{protocol: tcp, fromSource: [{path: /a}]}]}"), dial("/a", "tcp"), engine.Allowed},
		{"truncating passes readOnly", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f, readOnly: true}]}"), change("/a", "/f", behavior.OpTruncate), engine.Allowed},
		{"a change of mode passes readOnly", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f, readOnly: true}]}"), change("/a", "/f", behavior.OpChmod), engine.Allowed},
		{"removing passes readOnly", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f, readOnly: true}]}"), change("/a", "/f", behavior.OpUnlink), engine.Allowed},
		{"renaming passes readOnly", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f, readOnly: true}]}"), change("/a", "/f", behavior.OpRename), engine.Allowed},
		{"linking passes readOnly", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f, readOnly: true}]}"), change("/a", "/f", behavior.OpLink), engine.Allowed},
		{"removing what is not listed is denied", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), change("/a", "/g", behavior.OpUnlink), engine.Denied},
		{"truncating what is not listed is denied", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), change("/a", "/g", behavior.OpTruncate), engine.Denied},
		{"renaming what is not listed is denied", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), change("/a", "/g", behavior.OpRename), engine.Denied},
		{"linking what is not listed is denied", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), change("/a", "/g", behavior.OpLink), engine.Denied},
		{"making a folder that is not listed is denied", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), change("/a", "/g", behavior.OpMkdir), engine.Denied},
		{"making a device that is not listed is denied", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), change("/a", "/g", behavior.OpMknod), engine.Denied},
		{"a change of mode of what is not listed is denied", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), change("/a", "/g", behavior.OpChmod), engine.Denied},
		{"a change of owner passes, whatever is listed", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), change("/a", "/g", behavior.OpChown), engine.Allowed},
		{"a change of owner passes a Block, too", ksp("p", "action: Block\nfile: {matchPaths: [{path: /f}]}"), change("/a", "/f", behavior.OpChown), engine.Allowed},
		{"a process source is the immediate parent", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /b, fromSource: [{path: /a}]}]}"), run("/a", "/b"), engine.Allowed},
		{"a process source is no other", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /b, fromSource: [{path: /a}]}]}"), run("/c", "/b"), engine.Denied},
		{"a process from outside the container has no source", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /b, fromSource: [{path: /a}]}]}"), run("", "/b"), engine.Denied},
		{"a source that is a folder matches nothing", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /b, fromSource: [{path: /bin}]}]}"), run("/bin/a", "/b"), engine.Denied},
		{"a file source is the acting executable", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f, fromSource: [{path: /a}]}]}"), open("/a", "/f", r), engine.Allowed},
		{"a file source is no other", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f, fromSource: [{path: /a}]}]}"), open("/b", "/f", r), engine.Denied},
		{"a network source is the acting executable", block + ksp("p", "action: Allow\nnetwork: {matchProtocols: [{protocol: tcp, fromSource: [{path: /a}]}]}"), dial("/b", "tcp"), engine.Denied},
		{"an exact path with source beats a folder with source", ksp("p", "file: {matchPaths: [{path: /d/f, fromSource: [{path: /a}], action: Block}], matchDirectories: [{dir: /d/, recursive: true, fromSource: [{path: /a}], action: Allow}]}"), open("/a", "/d/f", r), engine.Denied},
		{"a folder with source beats an exact path", ksp("p", "file: {matchPaths: [{path: /d/f, action: Block}], matchDirectories: [{dir: /d/, recursive: true, fromSource: [{path: /a}], action: Allow}]}"), open("/a", "/d/f", r), engine.Allowed},
		{"a read-write folder with source beats an exact readOnly without", ksp("p", "action: Allow\nfile: {matchPaths: [{path: /d/f, readOnly: true}], matchDirectories: [{dir: /d/, recursive: true, fromSource: [{path: /a}]}]}"), open("/a", "/d/f", w), engine.Allowed},
		{"an exact path beats a folder that allows", ksp("p", "file: {matchPaths: [{path: /d/f, action: Block}], matchDirectories: [{dir: /d/, recursive: true, action: Allow}]}"), open("/a", "/d/f", r), engine.Denied},
		{"an exact path beats a folder that blocks", ksp("p", "file: {matchPaths: [{path: /d/f, action: Allow}], matchDirectories: [{dir: /d/, recursive: true, action: Block}]}"), open("/a", "/d/f", r), engine.Allowed},
		{"an exact path beats an execname", ksp("p", "process: {matchPaths: [{path: /d/x, action: Allow}, {execname: x, action: Block}]}"), run("", "/d/x"), engine.Allowed},
		{"an execname beats a folder", ksp("p", "process: {matchPaths: [{execname: x, action: Block}], matchDirectories: [{dir: /d/, recursive: true, action: Allow}]}"), run("", "/d/x"), engine.Denied},
		{"the deepest recursive folder wins", ksp("p", "file: {matchDirectories: [{dir: /d/, recursive: true, action: Allow}, {dir: /d/e/, recursive: true, action: Block}]}"), open("/a", "/d/e/f", r), engine.Denied},
		{"the deepest recursive folder wins in any order", ksp("p", "file: {matchDirectories: [{dir: /d/e/, recursive: true, action: Block}, {dir: /d/, recursive: true, action: Allow}]}"), open("/a", "/d/e/f", r), engine.Denied},
		{"the outer recursive folder holds beside the inner one", ksp("p", "file: {matchDirectories: [{dir: /d/, recursive: true, action: Allow}, {dir: /d/e/g/, recursive: true, action: Block}]}"), open("/a", "/d/e/f", r), engine.Allowed},
		{"a folder that is not recursive is ignored inside one that is", ksp("p", "file: {matchDirectories: [{dir: /d/, recursive: true, action: Allow}, {dir: /d/e/, action: Block}]}"), open("/a", "/d/e/f", r), engine.Allowed},
		{"a folder that is not recursive covers itself", block + ksp("p", "action: Allow\nfile: {matchDirectories: [{dir: /d/}]}"), open("/a", "/d", r), engine.Allowed},
		{"a folder that is not recursive covers its children", block + ksp("p", "action: Allow\nfile: {matchDirectories: [{dir: /d/}]}"), open("/a", "/d/f", r), engine.Allowed},
		{"a folder that is not recursive does not cover grandchildren", block + ksp("p", "action: Allow\nfile: {matchDirectories: [{dir: /d/}]}"), open("/a", "/d/e/f", r), engine.Denied},
		{"without a trailing slash contents do not match", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /d}]}"), open("/a", "/d/f", r), engine.Denied},
		{"the root folder covers everything", block + ksp("p", "action: Allow\nfile: {matchDirectories: [{dir: /, recursive: true}]}"), open("/a", "/d/e/f", r), engine.Allowed},
		{"of Allow and Block for one file the last policy wins", ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}") + ksp("q", "action: Block\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/f", r), engine.Denied},
		{"the last policy wins also when it allows", ksp("p", "action: Block\nfile: {matchPaths: [{path: /f}]}") + ksp("q", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/f", r), engine.Allowed},
		{"a type rule beats a protocol rule", ksp("p", "network: {matchProtocols: [{protocol: stream, action: Block}, {protocol: tcp, action: Allow}]}"), dial("/a", "tcp"), engine.Denied},
		{"several Allow policies add up", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}") + ksp("q", "action: Allow\nfile: {matchPaths: [{path: /g}]}"), open("/a", "/g", r), engine.Allowed},
		{"199 bytes of path match", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: "+long+"}]}"), open("/a", long, r), engine.Allowed},
		{"a longer path is compared by its first 199 bytes", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: "+long+"}]}"), open("/a", long+"b", r), engine.Allowed},
		{"a folder whose last slash is at 63 matches", block + ksp("p", "action: Allow\nfile: {matchDirectories: [{dir: "+deep+"}]}"), open("/a", deep+"f", r), engine.Allowed},
		{"of more than 20 components the last are seen", block + ksp("p", "action: Allow\nfile: {matchDirectories: [{dir: /x/, recursive: true}]}"), open("/a", "/x"+strings.Repeat("/y", 20), r), engine.Denied},
		{"20 components are seen", block + ksp("p", "action: Allow\nfile: {matchDirectories: [{dir: /x/, recursive: true}]}"), open("/a", "/x"+strings.Repeat("/y", 19), r), engine.Allowed},
		{"patterns are ignored, also with Block", ksp("p", "action: Block\nfile: {matchPatterns: [{pattern: /d/*}]}"), open("/a", "/d/f", r), engine.NotMine},
		{"an Allow of patterns only enforces nothing", block + ksp("p", "action: Allow\nfile: {matchPatterns: [{pattern: /d/*}]}"), open("/a", "/e", r), engine.NotMine},
		{"running a program opens its file", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /b}]}\nfile: {matchPaths: [{path: /f}]}"), run("", "/b"), engine.Denied},
		{"running a program whose file is allowed works", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /b}]}\nfile: {matchPaths: [{path: /b}]}"), run("", "/b"), engine.Allowed},
		{"/dev/null needs a rule", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/dev/null", w), engine.Denied},
		{"/proc needs a rule", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/proc/1/stat", r), engine.Denied},
		{"pipes are exempt", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "pipe:[1]", r), engine.Allowed},
		{"opening the root is exempt", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/", r), engine.Allowed},
		{"readOnly denies writing in an audit posture", audit + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f, readOnly: true}]}"), open("/a", "/f", rw), engine.Denied},
		{"readOnly allows reading", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f, readOnly: true}]}"), open("/a", "/f", r), engine.Allowed},
		{"a readOnly Block denies writing only", ksp("p", "action: Block\nfile: {matchDirectories: [{dir: /d/, readOnly: true, recursive: true}]}"), open("/a", "/d/f", r), engine.Allowed},
		{"a readOnly Block denies writing", ksp("p", "action: Block\nfile: {matchDirectories: [{dir: /d/, readOnly: true, recursive: true}]}"), open("/a", "/d/f", w), engine.Denied},
		{"creating what is not listed is denied", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", behavior.Create), engine.Denied},
		{"raw is every raw socket", block + ksp("p", "action: Allow\nnetwork: {matchProtocols: [{protocol: raw}]}"), dial("/a", "raw"), engine.Allowed},
		{"icmp is allowed by its protocol", block + ksp("p", "action: Allow\nnetwork: {matchProtocols: [{protocol: icmp}]}"), dial("/a", "icmp"), engine.Allowed},
		{"a rule for raw sockets covers some icmp only", block + ksp("p", "action: Allow\nnetwork: {matchProtocols: [{protocol: raw}]}"), dial("/a", "icmp"), engine.Unknown},
		{"tcp is not udp", block + ksp("p", "action: Allow\nnetwork: {matchProtocols: [{protocol: TCP}]}"), dial("/a", "udp"), engine.Denied},
		{"protocols may be joined by commas", block + ksp("p", "action: Allow\nnetwork: {matchProtocols: [{protocol: 'tcp, udp'}]}"), dial("/a", "udp"), engine.Allowed},
		{"all is every type of socket", block + ksp("p", "action: Allow\nnetwork: {matchProtocols: [{protocol: all}]}"), dial("/a", "udp"), engine.Allowed},
		{"an unknown protocol name denies everything", block + ksp("p", "action: Allow\nnetwork: {matchProtocols: [{protocol: xtcp}]}"), dial("/a", "tcp"), engine.Denied},
		{"a protocol that KubeArmor has no name for is unknown", block + ksp("p", "action: Allow\nnetwork: {matchProtocols: [{protocol: tcp}]}"), dial("/a", "quux"), engine.Unknown},
		{"a capability is named in lower case", block + ksp("p", "action: Allow\ncapabilities: {matchCapabilities: [{capability: net_raw}]}"), use("/a", "NET_RAW"), engine.Allowed},
		{"a prefix in lower case is read", block + ksp("p", "action: Allow\ncapabilities: {matchCapabilities: [{capability: cap_net_raw}]}"), use("/a", "NET_RAW"), engine.Allowed},
		{"a prefix in capitals is read as chown", block + ksp("p", "action: Allow\ncapabilities: {matchCapabilities: [{capability: CAP_net_raw}]}"), use("/a", "NET_RAW"), engine.Denied},
		{"a prefix in capitals allows chown", block + ksp("p", "action: Allow\ncapabilities: {matchCapabilities: [{capability: CAP_net_raw}]}"), use("/a", "CHOWN"), engine.Allowed},
		{"a capability that was refused is not judged", block + ksp("p", "action: Allow\ncapabilities: {matchCapabilities: [{capability: net_raw}]}"),
			behavior.Fact{Kind: behavior.Capability, Name: "SYS_ADMIN", Refused: true}, engine.NotMine},
		{"without a Namespace nothing unlisted is denied", ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.Allowed},
		{"the allow posture behaves as audit", namespace("allow") + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.Allowed},
		{"the audit posture denies nothing unlisted", audit + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.Allowed},
		{"a Block is denied in an audit posture", audit + ksp("p", "file: {matchPaths: [{path: /f}]}"), open("/a", "/f", r), engine.Denied},
		{"the block posture denies nothing where there is no Allow rule", block + ksp("p", "action: Block\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.Allowed},
		{"one class does not make an allow list of another", block + ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /b}]}"), open("/a", "/g", r), engine.NotMine},
		{"an Audit rule makes no allow list", block + ksp("p", "action: Audit\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.NotMine},
		{"the innermost action counts", ksp("p", "action: Allow\nfile: {action: Allow, matchPaths: [{path: /f, action: Block}]}"), open("/a", "/f", r), engine.Denied},
		{"ownerOnly is not known", ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f, ownerOnly: true}]}"), open("/a", "/f", r), engine.Unknown},
		{"arguments are not known", ksp("p", "action: Allow\nprocess: {matchPaths: [{path: /b, allowedArgs: [-v]}]}"), run("", "/b"), engine.Unknown},
		{"syscall rules only audit", block + ksp("p", "action: Block\nsyscalls: {matchSyscalls: [{syscall: [unlink]}]}"), behavior.Fact{Kind: behavior.Syscall, Name: "unlink"}, engine.NotMine},
		{"the runtime's own facts are not judged", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: /f}]}"),
			behavior.Fact{Kind: behavior.File, Path: "/g", Access: r, Runtime: true}, engine.NotMine},
		{"labels that differ do not select", block + ksp("p", "selector: {matchLabels: {app: api}}\naction: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.NotMine},
		{"In selects by whole labels", block + ksp("p", "selector: {matchExpressions: [{key: label, operator: In, values: [app=web]}]}\naction: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.Denied},
		{"NotIn leaves out by whole labels", block + ksp("p", "selector: {matchExpressions: [{key: label, operator: NotIn, values: [app=web]}]}\naction: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.NotMine},
		{"a container is selected by its anchored name", block + ksp("p", "selector: {matchLabels: {kubearmor.io/container.name: ^web$}}\naction: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.Denied},
		{"a container is not selected by another's anchored name", block + ksp("p", "selector: {matchLabels: {kubearmor.io/container.name: ^we$}}\naction: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.NotMine},
		{"an unanchored container name is unknown, for it reads differently", block + ksp("p", "selector: {matchLabels: {kubearmor.io/container.name: web}}\naction: Allow\nfile: {matchPaths: [{path: /f}]}"), open("/a", "/g", r), engine.Unknown},
		{"escaped names are compared by their bytes", block + ksp("p", "action: Allow\nfile: {matchPaths: [{path: \"/a\\tb\"}]}"), open("/a", `/a\x09b`, r), engine.Allowed},
		{"a cluster policy is not judged", block + "---\napiVersion: security.kubearmor.com/v1\nkind: KubeArmorClusterPolicy\nmetadata: {name: c}\n", open("/a", "/g", r), engine.Unknown},
		{"a host policy is not for pods", block + "---\napiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: c}\n", open("/a", "/g", r), engine.NotMine},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := parse(t, tt.given).Judge(web, tt.fact)
			if v.Decision != tt.want {
				t.Errorf("%s: got %s (%s), want %s", tt.fact, v.Decision, v.Reason, tt.want)
			}
			if (v.Object == "") != (v.Decision == engine.NotMine) || (v.Reason == "") != (v.Decision == engine.NotMine) {
				t.Errorf("verdict %+v does not say who decided and why", v)
			}
		})
	}
}

func TestAContainersKeysAreCountedOverPolicies(t *testing.T) {
	many := func(name, prefix string) string {
		var b strings.Builder
		b.WriteString("action: Allow\nfile:\n  matchPaths:\n")
		for i := range 200 {
			fmt.Fprintf(&b, "  - path: %s%d\n", prefix, i)
		}
		return ksp(name, b.String())
	}
	j := parse(t, namespace("block")+many("p", "/p")+many("q", "/q"))
	if v := j.Judge(web, open("/a", "/p1", r)); v.Decision != engine.Unknown {
		t.Errorf("with 401 keys: got %s (%s), want unknown", v.Decision, v.Reason)
	}
	j = parse(t, namespace("block")+many("p", "/p"))
	if v := j.Judge(web, open("/a", "/p1", r)); v.Decision != engine.Allowed {
		t.Errorf("with 201 keys: got %s (%s), want allowed", v.Decision, v.Reason)
	}
}

func TestParseRefusesWhatTheEngineWouldRefuseOrMisread(t *testing.T) {
	var tooMany strings.Builder
	tooMany.WriteString("action: Allow\nfile:\n  matchPaths:\n")
	for i := range 256 {
		fmt.Fprintf(&tooMany, "  - path: /p%d\n", i)
	}
	for _, tt := range []struct{ name, given, want string }{
		{"another group", "apiVersion: security.accuknox.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: p}\n", "apiVersion"},
		{"an unknown field", ksp("p", "file: {matchPath: [{path: /f}]}"), "unknown field"},
		{"a field in another case", ksp("p", "file: {matchpaths: [{path: /f}]}"), "unknown field"},
		{"an unknown action", ksp("p", "action: Deny"), "action"},
		{"an unknown inner action", ksp("p", "file: {matchPaths: [{path: /f, action: block}]}"), "action"},
		{"a relative path", ksp("p", "file: {matchPaths: [{path: f}]}"), "absolute"},
		{"a path with a slash at its end", ksp("p", "file: {matchPaths: [{path: /f/}]}"), "slash"},
		{"a path with a newline", ksp("p", "file: {matchPaths: [{path: \"/f\\ng\"}]}"), "absolute"},
		{"a path of 200 bytes", ksp("p", "file: {matchPaths: [{path: /"+strings.Repeat("a", 199)+"}]}"), "never match"},
		{"a source of 200 bytes", ksp("p", "file: {matchPaths: [{path: /f, fromSource: [{path: /"+strings.Repeat("a", 199)+"}]}]}"), "never match"},
		{"a folder without a slash at its end", ksp("p", "file: {matchDirectories: [{dir: /d}]}"), "slash"},
		{"a folder that is too long", ksp("p", "file: {matchDirectories: [{dir: /"+strings.Repeat("a", 63)+"/}]}"), "63"},
		{"readOnly of a process", ksp("p", "process: {matchPaths: [{path: /f, readOnly: true}]}"), "readOnly"},
		{"execname of a file", ksp("p", "file: {matchPaths: [{execname: f}]}"), "execname"},
		{"an execname with a slash", ksp("p", "process: {matchPaths: [{execname: /f}]}"), "execname"},
		{"an unknown protocol", ksp("p", "network: {matchProtocols: [{protocol: quic}]}"), "quic"},
		{"an unknown capability", ksp("p", "capabilities: {matchCapabilities: [{capability: bpf}]}"), "bpf"},
		{"a capability in capitals", ksp("p", "capabilities: {matchCapabilities: [{capability: CAP_NET_RAW}]}"), "CAP_NET_RAW"},
		{"an expression over another key", ksp("p", "selector: {matchExpressions: [{key: app, operator: In, values: [web]}]}"), "matchExpressions"},
		{"a severity out of range", ksp("p", "severity: 11"), "severity"},
		{"more keys than a container may have", ksp("p", tooMany.String()), "257"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := kubearmor.Engine{}.Parse(objects(t, tt.given))
			var invalid *engine.InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			if invalid.Object != "KubeArmorPolicy/p" || !strings.Contains(invalid.Reason, tt.want) || !behavior.IsEscaped(strings.ReplaceAll(invalid.Reason, `"`, "")) {
				t.Errorf("got %q, want it to name the policy and %q", err, tt.want)
			}
		})
	}
}

func TestPosturesFollowTheStage(t *testing.T) {
	for stage, want := range map[policy.Stage]string{policy.Audit: "audit", policy.Deny: "block"} {
		a := kubearmor.Annotations(stage)
		for _, key := range []string{kubearmor.FilePosture, kubearmor.NetworkPosture, kubearmor.CapabilitiesPosture} {
			if a[key] != want {
				t.Errorf("%s: %s is %q, want %q", stage, key, a[key], want)
			}
		}
	}
	if a := kubearmor.Annotations(policy.Observe); a != nil {
		t.Errorf("observe: got %v, want nothing", a)
	}
}
