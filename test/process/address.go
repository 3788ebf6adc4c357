package process

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
)

// given are the ports that were handed out: until the program that one is for
// listens, nobody but this package knows that it is taken.
var given sync.Map

// FreeAddr finds an address of 127.0.0.1 that nobody listens on just now, and that
// it has given to nobody else. The port is below those that the kernel gives to
// outgoing connections and those of Kubernetes' services, so that no client takes
// it before the program it is meant for does.
func FreeAddr() (string, error) {
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		if _, taken := given.LoadOrStore(addr, true); taken {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
			return addr, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return "", fmt.Errorf("find a free port: %w", err)
		}
	}
	return "", errors.New("find a free port: all of 1000 are taken")
}

// Addr is FreeAddr for a test, which fails where there is none.
func Addr(t testing.TB) string {
	t.Helper()
	addr, err := FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
