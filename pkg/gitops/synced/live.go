package synced

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// State is how an object of a commit stands in the cluster.
type State string

// States.
const (
	Same    State = "same"    // every field that the commit sets has its value
	Changed State = "changed" // some field has another
	Missing State = "missing"
	Extra   State = "extra"   // the cluster has it, the commit does not
	NoKind  State = "no kind" // the cluster does not know the kind, or not in this version
)

// Live is an object of a commit, or one that should be of it, in the cluster.
type Live struct {
	Kind, Name string
	State      State
	// Detail says what differs: the first field with another value, or the
	// versions that the cluster has of the kind's group.
	Detail string
	// Since is when anybody last changed it but for its status, on the cluster's
	// clock; zero when it is not there.
	Since time.Time
}

// ErrNotJSON is an object that is not one.
var ErrNotJSON = errors.New("not an object")

// Wanted is what a commit applies to a namespace.
type Wanted struct {
	Namespace string
	Objects   [][]byte // each the JSON of a whole object
	// Prefix begins the names of objects that can only be of a commit: those of
	// Objects' kinds, and of Also's (group/version/Kind), that the commit does not
	// have are found by it.
	Prefix string
	Also   []string
}

// Compare looks for the objects of a commit in the cluster, and for others that
// are of another commit. A field that the commit does not set may be anything:
// the API server fills in defaults. It needs the rights to get and list them and
// changes nothing. The result is in order of kind and name.
func (r *Reader) Compare(ctx context.Context, w Wanted) ([]Live, error) {
	wanted := map[schema.GroupVersionKind][]*unstructured.Unstructured{}
	for _, also := range w.Also {
		gv, kind, _ := cutLast(also, "/")
		parsed, err := schema.ParseGroupVersion(gv)
		if err != nil {
			return nil, fmt.Errorf("compare %s: %w", also, err)
		}
		wanted[parsed.WithKind(kind)] = nil
	}
	for _, data := range w.Objects {
		o := &unstructured.Unstructured{}
		if err := json.Unmarshal(data, &o.Object); err != nil || o.GetKind() == "" || o.GetName() == "" {
			return nil, fmt.Errorf("read an object of the commit: %w", errors.Join(ErrNotJSON, err))
		}
		wanted[o.GroupVersionKind()] = append(wanted[o.GroupVersionKind()], o)
	}
	var list []Live
	for gvk, want := range wanted {
		found, err := r.compareKind(ctx, w, gvk, want)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	slices.SortFunc(list, func(a, b Live) int { return strings.Compare(a.Kind+"\x00"+a.Name, b.Kind+"\x00"+b.Name) })
	return list, nil
}

func (r *Reader) compareKind(ctx context.Context, w Wanted, gvk schema.GroupVersionKind, want []*unstructured.Unstructured) ([]Live, error) {
	api, detail, err := r.kindOf(gvk)
	if err != nil {
		return nil, fmt.Errorf("ask the cluster for %s: %w", gvk.GroupVersion(), err)
	}
	var list []Live
	if api == nil {
		for _, o := range want {
			list = append(list, Live{Kind: gvk.Kind, Name: o.GetName(), State: NoKind, Detail: detail})
		}
		return list, nil
	}
	gvr := gvk.GroupVersion().WithResource(api.Name)
	live := map[string]*unstructured.Unstructured{}
	if api.Namespaced {
		all, err := r.api.Resource(gvr).Namespace(w.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", gvr.GroupResource(), denied(err, "list", gvr))
		}
		for i := range all.Items {
			live[all.Items[i].GetName()] = &all.Items[i]
		}
	} else {
		for _, o := range want {
			now, err := r.api.Resource(gvr).Get(ctx, o.GetName(), metav1.GetOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return nil, fmt.Errorf("read %s %s: %w", gvr.GroupResource(), o.GetName(), denied(err, "get", gvr))
			}
			if err == nil {
				live[o.GetName()] = now
			}
		}
	}
	for _, o := range want {
		now, ok := live[o.GetName()]
		delete(live, o.GetName())
		l := Live{Kind: gvk.Kind, Name: o.GetName(), State: Missing}
		if ok {
			l.State, l.Since = Same, touched(now)
			if field, differs := differing(o.Object, now.Object, ""); differs {
				l.State, l.Detail = Changed, field
			}
		}
		list = append(list, l)
	}
	for name, o := range live {
		if w.Prefix != "" && strings.HasPrefix(name, w.Prefix) {
			list = append(list, Live{Kind: gvk.Kind, Name: name, State: Extra, Since: touched(o)})
		}
	}
	return list, nil
}

// kindOf finds how the cluster serves a kind. Where it does not, the text says
// what it has instead.
func (r *Reader) kindOf(gvk schema.GroupVersionKind) (*metav1.APIResource, string, error) {
	l, err := r.kinds.ServerResourcesForGroupVersion(gvk.GroupVersion().String())
	if err == nil {
		for i, a := range l.APIResources {
			if a.Kind == gvk.Kind && !strings.Contains(a.Name, "/") {
				return &l.APIResources[i], "", nil
			}
		}
		return nil, fmt.Sprintf("the cluster has no %s in %s: its CRD is not installed", gvk.Kind, gvk.GroupVersion()), nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, "", err
	}
	groups, err := r.kinds.ServerGroups()
	if err != nil {
		return nil, "", err
	}
	for _, g := range groups.Groups {
		if g.Name != gvk.Group {
			continue
		}
		var versions []string
		for _, v := range g.Versions {
			versions = append(versions, v.Version)
		}
		return nil, fmt.Sprintf("the cluster has %s in version %s, not %s", gvk.Group, strings.Join(versions, ", "), gvk.Version), nil
	}
	return nil, fmt.Sprintf("the cluster does not know %s: its CRD is not installed", gvk.Group), nil
}

// touched is when anybody last changed an object, but for its status.
func touched(o *unstructured.Unstructured) time.Time {
	last := o.GetCreationTimestamp().Time
	for _, m := range o.GetManagedFields() {
		if m.Subresource == "" && m.Time != nil && m.Time.After(last) {
			last = m.Time.Time
		}
	}
	return last.UTC()
}

// differing finds the first field of want that live has not, or has with another
// value, in order of name. What is empty equals what is not there.
func differing(want, live any, at string) (string, bool) {
	switch w := want.(type) {
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok && len(w) > 0 {
			return fieldName(at), true
		}
		for _, key := range slices.Sorted(maps.Keys(w)) {
			if at == "" && key == "status" {
				continue
			}
			if field, differs := differing(w[key], l[key], at+"."+key); differs {
				return field, true
			}
		}
		return "", false
	case []any:
		l, ok := live.([]any)
		if (!ok && len(w) > 0) || len(l) != len(w) {
			return fieldName(at), true
		}
		for i := range w {
			if field, differs := differing(w[i], l[i], at+"["+strconv.Itoa(i)+"]"); differs {
				return field, true
			}
		}
		return "", false
	case nil:
		return fieldName(at), live != nil
	}
	return fieldName(at), !reflect.DeepEqual(number(want), number(live))
}

func fieldName(at string) string { return strings.TrimPrefix(at, ".") }

// number gives numbers one form: JSON has only one kind of them.
func number(v any) any {
	switch n := v.(type) {
	case int64:
		return float64(n)
	case int:
		return float64(n)
	}
	return v
}
