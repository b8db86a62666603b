//go:build linux

// Package bpf holds the C sources of the programs that observe containers, and
// the Go bindings generated from them. It loads nothing and knows no facts:
// pkg/probe does that. The objects are committed, so that building the project
// needs no clang.
package bpf

//go:generate go tool bpf2go -tags linux -target amd64,arm64 -no-global-types -type record -type seen -type namespace -type call_rule -type process_key -type file_key -type executed_key -type scratch -type socket_key -type flow_key -type flow -type capability_key -type made_key -type introduction_key -type kind -type loss -type room -type use -type entrant_key -type entrant -type record_flag -type path_flag -type access -type direction -type outcome -type setting -type capture -type drop -type segment -type question_key -type owner -type operation -type name_flag -type parcel_key -type parcel Floor floor.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -nostdinc
//go:generate go tool bpf2go -tags linux -target amd64,arm64 -no-global-types Hooks hooks.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -nostdinc
