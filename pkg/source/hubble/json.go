package hubble

import (
	"bytes"
	"fmt"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// AddJSON takes one line of what 'hubble observe -o jsonpb' prints, or of its older
// '-o json', which is the flow alone. Names that only a newer Cilium knows are passed
// over as on the wire.
func (b *Book) AddJSON(line []byte) error {
	loose := protojson.UnmarshalOptions{DiscardUnknown: true}
	var r observerpb.GetFlowsResponse
	err := loose.Unmarshal(line, &r)
	if err == nil && r.GetResponseTypes() == nil && !bytes.Contains(line, []byte(`"flow"`)) {
		var f flowpb.Flow
		if err = loose.Unmarshal(line, &f); err == nil {
			r.ResponseTypes, r.NodeName, r.Time = &observerpb.GetFlowsResponse_Flow{Flow: &f}, f.GetNodeName(), f.GetTime()
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	raw, err := proto.Marshal(&r)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return b.Add(raw)
}
