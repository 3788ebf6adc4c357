package main

import (
	"context"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/tracing"
)

// tracesEndpoint is the variable that OpenTelemetry's specification names for a
// collector's address.
const tracesEndpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"

// newTracer makes what traces are made with; nil when nobody asked for any. The
// configuration goes before the environment.
func newTracer(cfg config.Tracing, service string, log *logrus.Entry, metrics prometheus.Registerer) (*tracing.Tracer, error) {
	if cfg.Endpoint == "" {
		cfg.Endpoint = os.Getenv(tracesEndpoint)
	}
	if cfg.Endpoint == "" {
		return nil, nil
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	t, err := tracing.New(tracing.Config{
		Endpoint: cfg.Endpoint, Sample: float64(cfg.Sample), Service: service, Version: versionText(), Host: host,
		Log: log, Registerer: metrics,
	})
	if err != nil {
		return nil, usageErrorf("%s: %v", tracesEndpoint, err)
	}
	log.WithField("endpoint", cfg.Endpoint).WithField("sample", cfg.Sample.String()).Info("traces are sent")
	return t, nil
}

// closeTracer has the last spans sent, once everything that makes some has ended.
// A collector that does not take them is no failure of the process.
func closeTracer(t *tracing.Tracer, log *logrus.Entry) {
	ctx, cancel := context.WithTimeout(context.Background(), linger/2)
	defer cancel()
	if err := t.Close(ctx); err != nil {
		log.WithError(err).Warn("the last traces were not sent")
	}
}
