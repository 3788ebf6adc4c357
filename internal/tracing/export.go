package tracing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// maxQueue is how many spans wait to be sent at most; a span takes one to
	// two kilobytes. maxBatch is how many are sent at a time.
	maxQueue = 512
	maxBatch = 128
	// batchWait is how long the first span of a batch waits for others, and
	// sendTimeout how long a collector may take for a batch.
	batchWait   = 2 * time.Second
	sendTimeout = 5 * time.Second
	// maxAnswer bounds how much of a collector's answer is read, in bytes.
	maxAnswer = 64 << 10
)

// exporter sends spans that have ended. It is the SDK's span processor: OnEnd is
// called by whoever ends a span, and never waits.
type exporter struct {
	url     string
	client  *http.Client
	log     *logrus.Entry
	metrics *metrics
	queue   chan sdk.ReadOnlySpan

	once     sync.Once
	stopping chan struct{} // closed when there is no more to come
	stopped  chan struct{} // closed when run has ended
	cancel   context.CancelFunc
	down     bool // the last batch was not taken; run's alone
}

func newExporter(url string, log *logrus.Entry, m *metrics) *exporter {
	return &exporter{
		url: url,
		client: &http.Client{
			Transport: &http.Transport{MaxIdleConns: 1, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: sendTimeout},
			// A collector does not send its clients elsewhere, and spans are
			// for nobody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		log:      log,
		metrics:  m,
		queue:    make(chan sdk.ReadOnlySpan, maxQueue),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
	}
}

// OnStart implements the SDK's SpanProcessor.
func (e *exporter) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements the SDK's SpanProcessor: the span is queued, or lost.
func (e *exporter) OnEnd(s sdk.ReadOnlySpan) {
	select {
	case e.queue <- s:
	default:
		e.metrics.lost.Inc()
	}
}

// ForceFlush implements the SDK's SpanProcessor; nobody here asks for it.
func (e *exporter) ForceFlush(context.Context) error { return nil }

// Shutdown implements the SDK's SpanProcessor: what is queued is sent until ctx
// is done.
func (e *exporter) Shutdown(ctx context.Context) error {
	e.once.Do(func() { close(e.stopping) })
	select {
	case <-e.stopped:
		return nil
	case <-ctx.Done():
		e.cancel()
		<-e.stopped
		return fmt.Errorf("send last spans: %w", ctx.Err())
	}
}

// start starts the goroutine that sends. Shutdown ends it.
func (e *exporter) start() {
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	go func() {
		defer close(e.stopped)
		defer e.client.CloseIdleConnections()
		defer cancel()
		e.run(ctx)
	}()
}

// run gathers batches and sends them, until there is no more to come.
func (e *exporter) run(ctx context.Context) {
	var batch []sdk.ReadOnlySpan
	var due <-chan time.Time // when the batch goes although it is not full
	for {
		select {
		case s := <-e.queue:
			if batch = append(batch, s); len(batch) == 1 {
				due = time.After(batchWait)
			}
			if len(batch) < maxBatch {
				continue
			}
		case <-due:
		case <-e.stopping:
			e.drain(ctx, batch)
			return
		}
		e.send(ctx, batch)
		batch, due = nil, nil
	}
}

// drain sends what is left.
func (e *exporter) drain(ctx context.Context, batch []sdk.ReadOnlySpan) {
	for {
		select {
		case s := <-e.queue:
			if batch = append(batch, s); len(batch) == maxBatch {
				e.send(ctx, batch)
				batch = nil
			}
			continue
		default:
		}
		break
	}
	if len(batch) > 0 {
		e.send(ctx, batch)
	}
}

// send sends one batch, once: what a collector does not take now is lost.
func (e *exporter) send(ctx context.Context, batch []sdk.ReadOnlySpan) {
	rejected, err := e.post(ctx, batch)
	if err != nil {
		rejected = int64(len(batch))
	}
	rejected = max(0, min(rejected, int64(len(batch))))
	e.metrics.lost.Add(float64(rejected))
	e.metrics.sent.Add(float64(int64(len(batch)) - rejected))
	switch {
	case err != nil && !e.down:
		e.log.WithError(err).Warn("the collector takes no traces")
	case err == nil && e.down:
		e.log.Info("the collector takes traces again")
	}
	e.down = err != nil
}

// post sends one batch and returns how many of its spans the collector did not
// want (OTLP 1.x, "Partial Success").
func (e *exporter) post(ctx context.Context, batch []sdk.ReadOnlySpan) (rejected int64, err error) {
	content, err := json.Marshal(encode(batch))
	if err != nil {
		return 0, fmt.Errorf("encode spans: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(content))
	if err != nil {
		return 0, fmt.Errorf("send spans: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("send spans: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 != 2 {
		return 0, fmt.Errorf("send spans: the collector answered %d", resp.StatusCode)
	}
	if err != nil {
		return 0, fmt.Errorf("send spans: %w", err)
	}
	var said struct {
		PartialSuccess struct {
			RejectedSpans json.Number `json:"rejectedSpans"` // 64 bits: a string in JSON
		} `json:"partialSuccess"`
	}
	if len(answer) > 0 && json.Unmarshal(answer, &said) == nil && said.PartialSuccess.RejectedSpans != "" {
		if rejected, err = said.PartialSuccess.RejectedSpans.Int64(); err != nil {
			return 0, errors.New("send spans: the collector's answer makes no sense")
		}
	}
	return rejected, nil
}
