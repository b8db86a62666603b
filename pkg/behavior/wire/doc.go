// Package wire is how facts travel from a collector to the plugin: the messages
// of collector.proto, their limits, and the way to and from the types of package
// behavior. What arrives is hostile until Decode has accepted it; nothing that it
// refuses is ever used in part.
package wire

//go:generate sh -c "protoc -I . --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-go-grpc=$(go tool -n protoc-gen-go-grpc) --go_out=wirepb --go_opt=paths=source_relative --go-grpc_out=wirepb --go-grpc_opt=paths=source_relative collector.proto"
