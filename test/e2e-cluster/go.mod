module github.com/larder-registry/larder/test/e2e-cluster

go 1.26.6

replace github.com/larder-registry/larder => ../..

require (
	github.com/larder-registry/larder v0.0.0-00010101000000-000000000000
	github.com/opencontainers/go-digest v1.0.0
)

require go.uber.org/goleak v1.3.0 // indirect
