package supervisor

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// This file carries connections from the machine's loopback into the cluster.

// forward carries each connection that ln accepts to addr and back.
func forward(ln net.Listener, addr string) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go func() {
			defer conn.Close()
			to, err := dialer.DialContext(context.Background(), "tcp", addr)
			if err != nil {
				return // as a cut connection is what a client of a dead server sees
			}
			defer to.Close()
			var wg sync.WaitGroup
			wg.Go(func() { carry(to, conn) })
			wg.Go(func() { carry(conn, to) })
			wg.Wait()
		}()
	}
}

// carry copies what one end says to the other and passes its end on.
func carry(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	to.(*net.TCPConn).CloseWrite()
}
