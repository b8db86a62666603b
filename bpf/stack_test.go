//go:build linux

package bpf

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// stackBytes is what a program and the functions that it calls may use together:
// MAX_BPF_STACK of every kernel before 6.13, which checks it when it loads them.
const stackBytes = 512

// Newer kernels give each function a stack of its own on x86, so that loading on one
// does not show that it fits.
func TestEveryChainOfCallsFitsTheStackOfOlderKernels(t *testing.T) {
	objects := []string{"floor_x86_bpfel.o", "floor_arm64_bpfel.o", "hooks_x86_bpfel.o", "hooks_arm64_bpfel.o"}
	for _, object := range objects {
		t.Run(object, func(t *testing.T) {
			file, err := os.Open(object)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			for name, program := range programs(t, file) {
				functions := split(program.Instructions)
				if bytes, chain := functions.deepest(name); bytes > stackBytes {
					t.Errorf("%s needs %d bytes of stack: %s", name, bytes, strings.Join(chain, " > "))
				}
			}
		})
	}
}

func programs(t *testing.T, object io.ReaderAt) map[string]*ebpf.ProgramSpec {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpecFromReader(object)
	if err != nil || len(spec.Programs) == 0 {
		t.Fatalf("load object: %d programs, %v", len(spec.Programs), err)
	}
	return spec.Programs
}

// function is how much stack one uses, and what it calls.
type function struct {
	bytes int
	calls []string
}

type functions map[string]*function

func split(instructions asm.Instructions) functions {
	all := functions{}
	var f *function
	var fromFrame [11]bool // registers that hold the frame pointer
	for _, i := range instructions {
		if name := i.Symbol(); name != "" && (f == nil || !isJump(instructions, name)) {
			f = &function{}
			all[name] = f
			fromFrame = [11]bool{}
		}
		switch class := i.OpCode.Class(); {
		case class.IsStore() && i.Dst == asm.R10, class.IsLoad() && i.Src == asm.R10:
			f.use(-int(i.Offset))
		case i.OpCode.ALUOp() == asm.Mov && i.OpCode.Source() == asm.RegSource && class.IsALU():
			fromFrame[i.Dst] = i.Src == asm.R10
		case i.OpCode.ALUOp() == asm.Add && i.OpCode.Source() == asm.ImmSource && class.IsALU() && fromFrame[i.Dst]:
			f.use(-int(i.Constant))
			fromFrame[i.Dst] = false
		}
		if i.IsFunctionCall() || i.IsLoadOfFunctionPointer() {
			f.calls = append(f.calls, i.Reference())
		}
	}
	return all
}

// isJump tells whether a symbol is only where a jump goes.
func isJump(instructions asm.Instructions, symbol string) bool {
	called := false
	for _, i := range instructions {
		if i.Reference() == symbol {
			if i.IsFunctionCall() || i.IsLoadOfFunctionPointer() {
				called = true
			} else if i.OpCode.Class().IsJump() {
				return true
			}
		}
	}
	return !called
}

func (f *function) use(bytes int) { f.bytes = max(f.bytes, bytes) }

// deepest gives the bytes of the longest chain of calls, each rounded as the verifier
// of the oldest supported kernel does.
func (all functions) deepest(name string) (int, []string) {
	f := all[name]
	if f == nil {
		return 0, []string{name + " (not in the object)"}
	}
	own := (max(f.bytes, 1) + 31) &^ 31
	bytes, chain := 0, []string(nil)
	for _, called := range f.calls {
		if b, c := all.deepest(called); b > bytes {
			bytes, chain = b, c
		}
	}
	return own + bytes, append([]string{fmt.Sprintf("%s (%d)", name, f.bytes)}, chain...)
}

func TestStackOfAChainOfCallsIsAddedUp(t *testing.T) {
	program := asm.Instructions{
		asm.StoreImm(asm.R10, -40, 1, asm.DWord).WithSymbol("main"),
		asm.Mov.Reg(asm.R1, asm.R10),
		asm.Add.Imm(asm.R1, -300),
		asm.Call.Label("inner"),
		asm.Return(),
		asm.LoadMem(asm.R0, asm.R10, -200, asm.DWord).WithSymbol("inner"),
		asm.Return(),
	}
	if bytes, chain := split(program).deepest("main"); bytes != 320+224 || len(chain) != 2 {
		t.Errorf("%d bytes by %v, want 544 by two functions", bytes, chain)
	}
}
