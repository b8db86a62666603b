//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/plant"
)

const nodeName = "node-1"

type (
	api         = dynamic.Interface
	observation = wire.Observation
)

// pods is an API server that knows one pod with the two containers.
func pods(uid, main, held string) api {
	started := time.Now().UTC().Add(-time.Minute).Format(time.RFC3339)
	status := func(name, id string) any {
		return map[string]any{
			"name": name, "containerID": "containerd://" + id, "imageID": "localhost/planted@sha256:1234", "image": "localhost/planted:1",
			"ready": true, "restartCount": int64(0), "state": map[string]any{"running": map[string]any{"startedAt": started}},
		}
	}
	probe := map[string]any{"exec": map[string]any{"command": []any{plant.Program, plant.RoleProbe}}}
	pod := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"namespace": "test", "name": "planted-1", "uid": uid, "creationTimestamp": started},
		"spec": map[string]any{"nodeName": nodeName, "containers": []any{
			map[string]any{"name": "main", "image": "localhost/planted:1", "livenessProbe": probe},
			map[string]any{"name": "held", "image": "localhost/planted:1"},
		}},
		"status": map[string]any{"phase": "Running", "containerStatuses": []any{status("main", main), status("held", held)}},
	}}
	return fake.NewSimpleDynamicClient(runtime.NewScheme(), pod)
}

// client pulls from the collector, as the plugin does.
type client struct {
	connection *grpc.ClientConn
	collector  wirepb.CollectorClient
}

func connect(address string) (*client, error) {
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to collector: %w", err)
	}
	return &client{connection, wirepb.NewCollectorClient(connection)}, nil
}

func (c *client) close() error { return c.connection.Close() }

// ready waits until the collector knows its pods and has met who was there before.
func (c *client) ready(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := c.collector.Status(ctx, &wirepb.StatusRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("read the collector's status: %w", err)
		}
		if status.GetReady() && status.GetFacts() > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the collector: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// pull gives what is known of each container, by its ID.
func (c *client) pull(ctx context.Context) (map[string][]observation, wire.Status, error) {
	stream, err := c.collector.Pull(ctx, &wirepb.PullRequest{})
	if err != nil {
		return nil, wire.Status{}, fmt.Errorf("pull: %w", err)
	}
	seen := map[string][]observation{}
	var status wire.Status
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return seen, status, nil
		}
		if err != nil {
			return nil, status, fmt.Errorf("pull: %w", err)
		}
		batch, err := wire.DecodeBatch(message)
		if err != nil {
			return nil, status, err
		}
		for _, k := range batch.Containers {
			seen[k.ID] = append(seen[k.ID], k.Facts...)
		}
		if batch.Status != nil {
			status = *batch.Status
		}
	}
}
