package simulator

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
)

// largeXZ asks for a dictionary of 512 MiB to be unpacked.
const largeXZ = "fd377a585a000004e6d6b44602002101220000008240acdc0100286576656e745f74696d652c757365725f69640a323031392d31312d30312030303a30303a30302c310a0000000045b1c561e3250915000141290353568b1fb6f37d010000000004595a"

// TestXZ: a file decides neither how much memory it takes nor whether the reader fails.
func TestXZ(t *testing.T) {
	packed, err := hex.DecodeString(largeXZ)
	if err != nil {
		t.Fatal(err)
	}
	read := func(b []byte) (rows int64, err error) {
		c, err := ReadCSV(bytes.NewReader(b), "test")
		var r Row
		for err == nil {
			err = c.Next(&r)
		}
		return c.Stats().Rows, err
	}
	if _, err := read(packed); err == nil || !strings.Contains(err.Error(), "needs 512 MiB") {
		t.Errorf("%v", err)
	}
	packed[16] = 22 // 8 MiB; the header's checksum does not fit any more
	if _, err := read(packed); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("damaged: %v", err)
	}
	for n := range packed {
		if rows, err := read(packed[:n]); rows != 0 || err == nil {
			t.Errorf("cut at %d: %d rows, %v", n, rows, err)
		}
	}
}
