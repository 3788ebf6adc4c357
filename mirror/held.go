package mirror

import (
	"errors"
	"io"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/store"
)

// heldBlob is a blob on disk. When the disk fails to give it back the blob is
// dropped, so that the client, whose request is broken or refused by then, finds
// it fetched anew when it asks again.
type heldBlob struct {
	*store.Blob
	log *logrus.Entry
}

// Read reads from disk.
func (b heldBlob) Read(p []byte) (int, error) {
	n, err := b.Blob.Read(p)
	return n, b.judge(err)
}

// SendTo copies n bytes to w. The file itself is handed on, so that the system
// can send it without copying.
func (b heldBlob) SendTo(w io.Writer, n int64) (int64, error) {
	sent, err := io.CopyN(w, b.Blob.File, n)
	return sent, b.judge(err)
}

// judge drops the blob if err is the disk's.
func (b heldBlob) judge(err error) error {
	if errors.Is(err, syscall.EIO) {
		log := b.log.WithError(err).WithField("digest", b.Descriptor().Digest.String())
		if e := b.Discard(); e != nil {
			log = log.WithField("discard", e.Error())
		}
		log.Error("blob cannot be read from disk any more and is dropped")
	}
	return err
}
