package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/streamio"
)

// The annotations of a descriptor that say where in the blob table and record are: offset, length, and what for other formats.
const (
	tocPosition    = "io.github.containers.zstd-chunked.manifest-position"
	recordPosition = "io.github.containers.zstd-chunked.tarsplit-position"
)

// Limits of table and record. A few bytes can become any number of them.
const (
	maxPacked = 32 << 20  // bytes in the blob
	maxTable  = 128 << 20 // bytes of the table
	maxParts  = 1 << 20   // of files, that the table names
	maxEntry  = 8 << 20   // bytes of one entry of the record: as many as the headers of a member may have, in base64
)

// tocEntry is what is needed of an entry of a table.
type tocEntry struct {
	Type      string        `json:"type"`
	Name      string        `json:"name"`
	Size      int64         `json:"size"`
	Digest    digest.Digest `json:"digest"`
	Offset    int64         `json:"offset"`
	EndOffset int64         `json:"endOffset"`
	ChunkSize int64         `json:"chunkSize"`
	ChunkType string        `json:"chunkType"`
}

// file tells whether it is a file with content.
func (e tocEntry) file() bool { return e.Type == "reg" && e.Size > 0 }

// readTable fetches the table and the record of a layer. The manifest has the digest of the table, and the table that of the record.
func readTable(ctx context.Context, l Layer, e *Meter) ([]tocEntry, []byte, error) {
	var toc, record Section
	if _, err := fmt.Sscanf(l.Annotations[tocPosition], "%d:%d:", &toc.Offset, &toc.Length); err != nil {
		return nil, nil, kimg.Errorf(kimg.ErrUnsupported, "", "%s: %w", tocPosition, err)
	}
	if _, err := fmt.Sscanf(l.Annotations[recordPosition], "%d:%d:", &record.Offset, &record.Length); err != nil {
		return nil, nil, kimg.Errorf(kimg.ErrUnsupported, "", "%s: %w", recordPosition, err)
	}
	if size := uint64(l.Size); toc.Length > maxPacked || record.Length > maxPacked || toc.Length+record.Length > size/2 || record.Offset > size-record.Length ||
		toc.Offset > record.Offset || toc.Offset+toc.Length > record.Offset {
		return nil, nil, kimg.Errorf(kimg.ErrUnsupported, "", "a table of %d bytes and a record of %d are not where they should be, or too large", toc.Length, record.Length)
	}
	r, err := l.Sections(ctx, []Section{toc, record})
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	packed := make([]byte, toc.Length+record.Length)
	if _, err := io.ReadFull(io.TeeReader(streamio.WithContext(ctx, r), e), packed); err != nil {
		return nil, nil, err
	}
	if err := streamio.Check(packed[:toc.Length], l.TOC); err != nil {
		return nil, nil, err
	}
	z, err := decoder(bytes.NewReader(packed[:toc.Length]))
	if err != nil {
		return nil, nil, err
	}
	defer z.Close()
	table, wanted, err := decodeTable(io.LimitReader(z, maxTable))
	if err == nil {
		err = streamio.Check(packed[toc.Length:], wanted)
	}
	return table, packed[toc.Length:], err
}

// decodeTable returns the entries that have content, or say where some is, and the digest of the record.
func decodeTable(r io.Reader) (table []tocEntry, record digest.Digest, err error) {
	d := json.NewDecoder(r)
	var e tocEntry
	var other json.RawMessage
	in := func(what json.Delim, each func(key json.Token) error) error {
		if t, err := d.Token(); err != nil || t != what {
			return errors.Join(err, kimg.Errorf(kimg.ErrIntegrity, "", "not a table of contents"))
		}
		for d.More() {
			var key json.Token
			if what == '{' {
				if key, err = d.Token(); err != nil {
					return err
				}
			}
			if err := each(key); err != nil {
				return err
			}
		}
		_, err := d.Token()
		return err
	}
	err = in('{', func(key json.Token) error {
		switch key {
		case "entries":
			return in('[', func(json.Token) error {
				e = tocEntry{}
				if err := d.Decode(&e); err != nil || !e.file() && e.Type != "chunk" {
					return err
				}
				if table = append(table, e); len(table) > maxParts {
					return kimg.Errorf(kimg.ErrLimit, "", "a table of more than %d parts", maxParts)
				}
				return nil
			})
		case "tarSplitDigest":
			return d.Decode(&record)
		}
		return d.Decode(&other)
	})
	return table, record, err
}

func decoder(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(maxTable))
}
