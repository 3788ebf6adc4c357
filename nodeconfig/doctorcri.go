package nodeconfig

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxMessage bounds a gRPC answer, in bytes. The largest that is asked for is
// what a runtime knows of one image.
const maxMessage = 4 << 20

// cri is a client of the container runtime interface (kubelet's cri-api,
// runtime.v1), as far as it takes to have one image pulled: two calls without
// streams. gRPC's own library would be a third of a node binary for that, so
// they are made as what they are, HTTP/2 requests (grpc.io, PROTOCOL-HTTP2.md).
type cri struct {
	http *http.Client
	// close lets go of the connection.
	close func()
}

// newCRI makes a client for the socket at host. Nothing is contacted yet.
func newCRI(host string) *cri {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", host)
		},
		Protocols:          new(http.Protocols),
		DisableCompression: true,
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return &cri{http: &http.Client{Transport: transport}, close: transport.CloseIdleConnections}
}

// hasImage reports whether the node holds image.
func (c *cri) hasImage(ctx context.Context, image string) (bool, error) {
	answer, err := c.call(ctx, "ImageService/ImageStatus", imageSpec(image))
	if err != nil {
		return false, err
	}
	fields, err := stringFields(answer)
	return fields[1] != "", err
}

// pull has the runtime pull image as it does for a kubelet that has no
// credentials for it, and returns what the runtime calls it. ctx bounds it.
func (c *cri) pull(ctx context.Context, image string) (ref string, err error) {
	answer, err := c.call(ctx, "ImageService/PullImage", imageSpec(image))
	if err != nil {
		return "", err
	}
	fields, err := stringFields(answer)
	return fields[1], err
}

// imageSpec is a message whose first field is an ImageSpec naming image.
func imageSpec(image string) []byte {
	spec := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), image)
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), spec)
}

// stringFields are the fields of a message that are strings or messages, by
// their number; of those that are repeated, the last.
func stringFields(message []byte) (map[protowire.Number]string, error) {
	fields := map[protowire.Number]string{}
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fields, fmt.Errorf("read answer: %w", protowire.ParseError(n))
		}
		message = message[n:]
		if kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return fields, fmt.Errorf("read answer: %w", protowire.ParseError(n))
			}
			fields[number] = string(value)
		}
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return fields, fmt.Errorf("read answer: %w", protowire.ParseError(n))
		}
		message = message[n:]
	}
	return fields, nil
}

// call makes one call without streams. The error has the status of gRPC and the
// runtime's words.
func (c *cri) call(ctx context.Context, method string, message []byte) ([]byte, error) {
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://runtime/runtime.v1."+method, bytes.NewReader(append(frame, message...)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // the URL is made up
		}
		return nil, fmt.Errorf("call %s: %w", method, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage+6))
	if err == nil && len(body) > maxMessage+5 {
		err = fmt.Errorf("the answer is longer than %d bytes", maxMessage)
	}
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", method, err)
	}
	if err := grpcStatus(resp); err != nil {
		return nil, fmt.Errorf("call %s: %w", method, err)
	}
	answer, err := unframe(body)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", method, err)
	}
	return answer, nil
}

// grpcStatus is what a call came to. An answer that is an error only has it
// among its headers.
func grpcStatus(resp *http.Response) error {
	status, message := resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
	if status == "" {
		status, message = resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
	}
	switch {
	case status == "0" && resp.StatusCode == http.StatusOK:
		return nil
	case status == "":
		return fmt.Errorf("the answer is no gRPC: %s", resp.Status)
	}
	if text, err := url.PathUnescape(message); err == nil {
		message = text
	}
	return fmt.Errorf("%s (gRPC status %s)", message, status)
}

// unframe takes the one message out of a body.
func unframe(body []byte) ([]byte, error) {
	if len(body) < 5 || body[0] != 0 || uint64(len(body)-5) != uint64(binary.BigEndian.Uint32(body[1:])) {
		return nil, errors.New("the answer is no single message without compression")
	}
	return body[5:], nil
}
