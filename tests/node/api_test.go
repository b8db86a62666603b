//go:build linux

package node_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

func pod(n int, phase corev1.PodPhase) corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "test", Name: fmt.Sprintf("pod-%d", n), UID: types.UID(fmt.Sprint(n))}, Status: corev1.PodStatus{Phase: phase}}
}

func TestTheListHoldsWhatBecameOfEveryPodThatIsThere(t *testing.T) {
	api := node.New()
	api.Set(pod(1, "Pending"), pod(2, "Running"), pod(3, "Running"))
	api.Set(pod(1, "Running"))
	api.Delete(pod(3, "Running"))
	w := httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/pods", nil))
	var list corev1.PodList
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 2 || list.Items[0].Name != "pod-1" || list.Items[0].Status.Phase != "Running" || list.ResourceVersion != "5" {
		t.Errorf("list %+v", list)
	}
	w = httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/services", nil))
	var none corev1.ServiceList
	if err := json.Unmarshal(w.Body.Bytes(), &none); err != nil || len(none.Items) != 0 {
		t.Errorf("services: %s, %v", w.Body, err)
	}
}

func TestAWatchTellsWhatHappensAfterTheList(t *testing.T) {
	api := node.New()
	api.Set(pod(1, "Running"))
	server := httptest.NewServer(api)
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/api/v1/pods?watch=true&resourceVersion=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	api.Set(pod(2, "Pending"))
	api.Set(pod(2, "Running"))
	api.Delete(pod(1, "Running"))
	lines := bufio.NewScanner(response.Body)
	for _, want := range []string{"ADDED pod-2 Pending", "MODIFIED pod-2 Running", "DELETED pod-1 Running"} {
		if !lines.Scan() {
			t.Fatal("the watch ended: ", lines.Err())
		}
		var e struct {
			Type   string
			Object corev1.Pod
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(e.Type, " ", e.Object.Name, " ", e.Object.Status.Phase); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
