// Checks what a ledger published with code that nobody here wrote: the packages note and tlog of golang.org/x/mod.
//
// Reads one JSON object from standard input and prints one line: "ok" and how much was checked, or what is wrong.
// Tiles are not read with this package: the version that Debian has accepts some that were altered. Whole trees are.
package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Hashes and leaves come as standard base64, which is what encoding/json takes for []byte.
type task struct {
	VerifierKey string
	Checkpoints []string
	Inclusion   []inclusion
	Consistency []consistency
	// All leaves of a tree, and the sizes whose roots are asked for.
	Leaves [][]byte
	Roots  []root
}

type inclusion struct {
	Size, Index uint64
	Root, Leaf  []byte
	LeafHash    []byte
	Proof       [][]byte
	Wrong       bool
}

type consistency struct {
	Old, New         uint64
	OldRoot, NewRoot []byte
	Proof            [][]byte
	Wrong            bool
}

type root struct {
	Size int64
	Root []byte
}

func main() {
	var work task
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&work); err != nil {
		fail("the task cannot be read: %v", err)
	}
	checkpoints(work)
	for at, one := range work.Inclusion {
		if err := one.check(); (err != nil) != one.Wrong {
			fail("inclusion proof %d: %v", at, err)
		}
	}
	for at, one := range work.Consistency {
		if err := one.check(); (err != nil) != one.Wrong {
			fail("consistency proof %d: %v", at, err)
		}
	}
	trees(work)
	fmt.Printf("ok %d %d %d %d\n", len(work.Checkpoints), len(work.Inclusion), len(work.Consistency), len(work.Roots))
}

func fail(format string, values ...any) {
	fmt.Printf(format+"\n", values...)
	os.Exit(1)
}

// checkpoints opens each note with the ledger's key, and reads origin, size and root.
func checkpoints(work task) {
	if len(work.Checkpoints) == 0 {
		return
	}
	verifier, err := note.NewVerifier(work.VerifierKey)
	if err != nil {
		fail("the verifier key: %v", err)
	}
	for at, text := range work.Checkpoints {
		opened, err := note.Open([]byte(text), note.VerifierList(verifier))
		if err != nil {
			fail("checkpoint %d: %v", at, err)
		}
		lines := strings.Split(opened.Text, "\n")
		if len(lines) != 4 || lines[0] != verifier.Name() || lines[3] != "" {
			fail("checkpoint %d has other lines: %q", at, lines)
		}
		if _, err := strconv.ParseInt(lines[1], 10, 64); err != nil {
			fail("checkpoint %d: %v", at, err)
		}
		if _, err := tlog.ParseHash(lines[2]); err != nil {
			fail("checkpoint %d: %v", at, err)
		}
	}
}

func (one inclusion) check() error {
	proof, err := hashes(one.Proof)
	if err != nil {
		return err
	}
	root, err := hash(one.Root)
	if err != nil {
		return err
	}
	leaf, err := one.leafHash()
	if err != nil {
		return err
	}
	size, index, err := signed(one.Size, one.Index)
	if err != nil {
		return err
	}
	return guarded(func() error { return tlog.CheckRecord(tlog.RecordProof(proof), size, root, index, leaf) })
}

func (one inclusion) leafHash() (tlog.Hash, error) {
	if one.LeafHash != nil {
		return hash(one.LeafHash)
	}
	return tlog.RecordHash(one.Leaf), nil
}

func (one consistency) check() error {
	proof, err := hashes(one.Proof)
	if err != nil {
		return err
	}
	oldRoot, err := hash(one.OldRoot)
	if err != nil {
		return err
	}
	newRoot, err := hash(one.NewRoot)
	if err != nil {
		return err
	}
	newSize, oldSize, err := signed(one.New, one.Old)
	if err != nil {
		return err
	}
	return guarded(func() error { return tlog.CheckTree(tlog.TreeProof(proof), newSize, newRoot, oldSize, oldRoot) })
}

// trees builds the tree from its leaves and compares the roots.
func trees(work task) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for at, index := range indexes {
			found[at] = stored[index]
		}
		return found, nil
	})
	for at, leaf := range work.Leaves {
		more, err := tlog.StoredHashes(int64(at), leaf, reader)
		if err != nil {
			fail("leaf %d: %v", at, err)
		}
		stored = append(stored, more...)
	}
	for _, one := range work.Roots {
		expected, err := hash(one.Root)
		if err != nil {
			fail("root of size %d: %v", one.Size, err)
		}
		if one.Size > int64(len(work.Leaves)) {
			fail("there are fewer than %d leaves", one.Size)
		}
		found, err := tlog.TreeHash(one.Size, reader)
		if err != nil || found != expected {
			fail("the root of size %d is another one: %v %v", one.Size, found, err)
		}
	}
}

// guarded turns a panic, which is how this version refuses some sizes, into an error.
func guarded(check func() error) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("refused: %v", reason)
		}
	}()
	return check()
}

// signed gives the numbers as the package takes them.
func signed(one, other uint64) (int64, int64, error) {
	if one > math.MaxInt64 || other > math.MaxInt64 {
		return 0, 0, fmt.Errorf("a size or an index is out of range")
	}
	return int64(one), int64(other), nil
}

func hash(raw []byte) (tlog.Hash, error) {
	var found tlog.Hash
	if len(raw) != tlog.HashSize {
		return found, fmt.Errorf("a hash has %d bytes", len(raw))
	}
	copy(found[:], raw)
	return found, nil
}

func hashes(raw [][]byte) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, 0, len(raw))
	for _, one := range raw {
		node, err := hash(one)
		if err != nil {
			return nil, err
		}
		found = append(found, node)
	}
	return found, nil
}
