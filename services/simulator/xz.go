package simulator

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ulikunitz/xz"
)

// xzMagic is what files packed with xz begin with.
const xzMagic = "\xfd7zX"

// newXZ unpacks a file packed with xz. One whose first block asks for more memory than maxWindow is refused; the library would take it.
func newXZ(in *bufio.Reader) (io.Reader, error) {
	if size := xzWindow(in); size > maxWindow {
		return nil, fmt.Errorf("xz: decompression needs %d MiB of memory, but the limit is %d; compress the file with xz -9 or lower", size>>20, maxWindow>>20)
	}
	return xz.NewReader(in)
}

// xzWindow returns the size of the dictionary that the first block asks for, 0 if there is none. See the file format's description, 3.1 and 5.3.1.
func xzWindow(in *bufio.Reader) int64 {
	const streamHeader = 12
	b, _ := in.Peek(streamHeader + 64) // an error comes back on reading
	if len(b) < streamHeader+2 {
		return 0
	}
	flags := b[streamHeader+1]
	b = b[streamHeader+2:]
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[max(n, 0):]
		return v
	}
	if flags&0x40 != 0 {
		number() // compressed size
	}
	if flags&0x80 != 0 {
		number() // uncompressed size
	}
	for range flags&3 + 1 {
		id, size := number(), number()
		if size > uint64(len(b)) {
			return 0
		}
		if id == 0x21 && size == 1 { // LZMA2
			bits := int64(b[0])
			if bits > 40 {
				return 0
			}
			return (2 | bits&1) << (bits/2 + 11)
		}
		b = b[size:]
	}
	return 0
}
