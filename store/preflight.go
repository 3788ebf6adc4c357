package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
	"google.golang.org/protobuf/proto"
)

// errGarbled means that a file of the index is not what badger wrote.
var errGarbled = errors.New("index is damaged")

// preflight looks at the files of an index before badger does. Badger answers a
// damaged file with an error only in places; elsewhere it exits the process, or
// panics in a goroutine of its own, and neither can be caught. The checks are
// those under which it was found not to, by damaging each kind of file.
func preflight(dir string) error {
	// No value is large enough for the value log (see maxValue), so these two
	// hold nothing, and badger makes them anew.
	for _, pattern := range []string{"*.vlog", "DISCARD"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := os.Remove(file); err != nil {
				return noSpace(err)
			}
		}
	}
	return checkFiles(dir)
}

// checkFiles is the part of preflight that only reads.
func checkFiles(dir string) error {
	for pattern, check := range map[string]func(string) error{"*.sst": checkTable, "*.mem": checkLog} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := contain(func() error { return check(file) }); err != nil {
				// A panic over one file leaves nothing running.
				return fmt.Errorf("%w: %s: %v", errGarbled, filepath.Base(file), err)
			}
		}
	}
	return nil
}

// checkTable checks a table. Its last bytes are, read from the end: the length
// of a checksum, the checksum, the length of the index, the index. Once those
// are right, badger can be asked to check the blocks.
func checkTable(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	sum, content, err := cutTail(content)
	if err != nil {
		return err
	}
	index, _, err := cutTail(content)
	if err != nil {
		return err
	}
	var want pb.Checksum
	if err := proto.Unmarshal(sum, &want); err != nil {
		return err
	}
	if err := y.VerifyChecksum(index, &want); err != nil {
		return err
	}
	mapped, err := z.OpenMmapFile(file, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	t, err := table.OpenTable(mapped, table.Options{ChkMode: options.OnTableAndBlockRead, ReadOnly: true})
	if err != nil {
		return err
	}
	return t.Close(-1)
}

// cutTail cuts a run of bytes off the end, where its length follows it.
func cutTail(content []byte) (tail, rest []byte, err error) {
	at := len(content) - 4
	if at < 0 {
		return nil, nil, errors.New("too short")
	}
	length := int64(binary.BigEndian.Uint32(content[at:]))
	if length > int64(at) {
		return nil, nil, errors.New("a length points beyond the file")
	}
	return content[at-int(length) : at], content[:at-int(length)], nil
}

// The log's form: a header of 20 bytes, then entries of meta, user meta, the
// lengths of key and value and an expiry as varints, key, value and CRC-32C.
const (
	logHeader = 20
	maxLogKey = 1 << 16
)

// checkLog checks that no entry of a log claims a length that is not there,
// which badger would allocate. An entry torn by a crash is fine: its checksum
// fails and ends the log.
func checkLog(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if len(content) < logHeader {
		return errors.New("too short")
	}
	for rest := content[logHeader:]; len(rest) > 2; {
		entry, size := rest, 2
		var lengths [3]uint64
		for n := range lengths {
			v, width := binary.Uvarint(entry[size:])
			if width <= 0 {
				return errors.New("a length does not end")
			}
			lengths[n], size = v, size+width
		}
		key, value := lengths[0], lengths[1]
		if key == 0 {
			return nil
		}
		if key > maxLogKey || value > uint64(len(rest)) || uint64(size)+key+value+crc32.Size > uint64(len(rest)) {
			return errors.New("a length points beyond the file")
		}
		size += int(key + value)
		if crc32.Checksum(entry[:size], y.CastagnoliCrcTable) != binary.BigEndian.Uint32(entry[size:]) {
			return nil
		}
		rest = rest[size+crc32.Size:]
	}
	return nil
}
