package gitops

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/go-git/go-billy/v5/memfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

func TestParseTrailers(t *testing.T) {
	for name, c := range map[string]struct {
		message string
		want    []Trailer
	}{
		"the last paragraph":               {"Subject\n\nBody: text.\n\nStage: deny\nBy: Ada <a@b>\n", []Trailer{{"Stage", "deny"}, {"By", "Ada <a@b>"}}},
		"a line that goes on":              {"S\n\nA: one\n  two\nB: x", []Trailer{{"A", "one two"}, {"B", "x"}}},
		"Windows line ends":                {"S\r\n\r\nA: one\r\n", []Trailer{{"A", "one"}}},
		"an empty value":                   {"S\n\nA:", []Trailer{{"A", ""}}},
		"the subject is none":              {"fix: this", nil},
		"a sentence in the paragraph":      {"S\n\nA: one\nand then this", nil},
		"a continuation without a start":   {"S\n\n  A: one", nil},
		"a key with a space is a sentence": {"S\n\nSee also: that", nil},
		"an empty message has none":        {"", nil},
	} {
		if got := parseTrailers(c.message); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestParseLocation(t *testing.T) {
	for raw, want := range map[string]string{
		"/srv/repo.git": "path /srv/repo.git", "repo": "path repo", "./a:b": "path ./a:b", `C:\repo`: `path C:\repo`, "C:/repo": "path C:/repo",
		"file:///srv/a%20b": "path /srv/a b", "FILE:///x": "path /x", "file://localhost/x": "path /x",
		"https://h/x": "https://h/x", "http://h:81/x": "http://h:81/x", "ssh://git@h:22/x": "ssh://git@h/x",
		"git@h:org/x.git": "ssh://git@h/org/x.git", "host:x": "ssh://host/x",
	} {
		loc, err := parseLocation(raw)
		got := "path " + loc.path
		if loc.endpoint != nil {
			got = loc.endpoint.String()
		}
		if err != nil || got != want {
			t.Errorf("%s is %s, want %s: %v", raw, got, want, err)
		}
	}
	for _, raw := range []string{"", "ext::x", "git://h/x", "file://host/x", "https:///x", "https://h", "https://u:secret@h/x?y", "ssh://u:secret@[::/x", "a\nb"} {
		if loc, err := parseLocation(raw); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s is %+v: %v", raw, loc, err)
		}
	}
}

func TestServerWords(t *testing.T) {
	var out bytes.Buffer
	w := &serverWords{out: &out}
	for _, part := range []string{"10%\r50%\r100%, do", "ne\n", "\x1b]0;title\a\n\n", strings.Repeat("x", 3*maxWords) + "\n"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	want := "remote: 100%, done\nremote: \\x1b]0;title\\a\nremote: " + strings.Repeat("x", maxWords) + "\n"
	if out.String() != want {
		t.Errorf("passed on %.200q", out.String())
	}
	if !strings.HasPrefix(w.String(), `100%, done; \x1b]0;title\a; xxx`) {
		t.Errorf("kept %.200q", w.String())
	}
}

func FuzzTree(f *testing.F) {
	f.Add([]byte("100644 a\x00" + strings.Repeat("h", 20)))
	f.Add([]byte("40000 a\x00" + strings.Repeat("h", 20) + "120000 b\x00" + strings.Repeat("i", 20)))
	f.Add([]byte("1 \x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := objects{
			store:   filesystem.NewStorage(memfs.New(), cache.NewObjectLRUDefault()),
			written: map[plumbing.Hash]bool{},
		}
		h, err := o.write(plumbing.TreeObject, data)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := o.tree(h)
		if err != nil {
			return
		}
		// What is read is written back bit by bit.
		if again, err := o.writeTree(entries); err != nil || again != h {
			t.Errorf("%q became another tree: %v", data, err)
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add("https://user:pass@host/x", "S\n\nA: b\n c")
	f.Add("git@host:x", "\x1b[31m")
	f.Fuzz(func(t *testing.T, raw, message string) {
		if _, err := parseLocation(raw); err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("error is not printable: %q", err)
		}
		for _, tr := range parseTrailers(message) {
			if tr.Key == "" || strings.Contains(tr.Value, "\n") {
				t.Errorf("trailer %q", tr)
			}
		}
		if checkPath(raw) == nil && (strings.Contains("/"+raw+"/", "/../") || strings.HasPrefix(raw, "/")) {
			t.Errorf("path %q is taken", raw)
		}
	})
}
