package upstream

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"github.com/sirupsen/logrus"
)

// awsChain is the SDK's default chain of credentials: environment, web identity
// of a service account, shared files, Pod Identity and container endpoints,
// instance role. It is set up when somebody first asks for a token, and asks
// nobody before; all registries share it.
type awsChain struct {
	now func() time.Time
	log *logrus.Entry

	mu   sync.Mutex
	base *aws.Config // nil before the first question
	// absent is until when it is taken for certain that this machine has no
	// instance role.
	absent time.Time
}

// config gives what a service of AWS's in region is asked with, on behalf of
// the role if one is named. It fails with errNoMetadata when there are no
// credentials at all.
func (a *awsChain) config(ctx context.Context, region, role string) (aws.Config, error) {
	base, err := a.load(ctx, region)
	if err != nil {
		return aws.Config{}, err
	}
	if _, err := base.Credentials.Retrieve(ctx); err != nil {
		return aws.Config{}, awsError("find AWS credentials", err)
	}
	cfg := base.Copy()
	cfg.Region = region
	if role != "" {
		provider := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), role, func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "larder" })
		cfg.Credentials = aws.NewCredentialsCache(provider)
	}
	return cfg, nil
}

// load sets the chain up, once; a failure to is not kept.
func (a *awsChain) load(ctx context.Context, region string) (*aws.Config, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.base != nil {
		return a.base, nil
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithDefaultRegion(region), config.WithHTTPClient(occasional()), config.WithLogger(logging.Nop{}))
	if err != nil {
		return nil, awsError("read AWS configuration", err)
	}
	if cache, ok := cfg.Credentials.(*aws.CredentialsCache); ok && cache.IsCredentialsProvider(&ec2rolecreds.Provider{}) {
		cfg.Credentials = aws.NewCredentialsCache(&instanceRole{chain: a, Provider: ec2rolecreds.New(func(o *ec2rolecreds.Options) {
			o.Client = imds.NewFromConfig(cfg, func(o *imds.Options) {
				o.EnableFallback = aws.FalseTernary // IMDSv2 and nothing else
				o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = 2, 100*time.Millisecond })
			})
		})})
	}
	a.base = &cfg
	return a.base, nil
}

// occasional is the SDK's client without idle connections: hours pass between
// two questions.
func occasional() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.DisableKeepAlives = true })
}

// instanceRole asks the instance's metadata service, which may not be there:
// it is waited for only a little, and a while passes until it is asked again.
type instanceRole struct {
	*ec2rolecreds.Provider
	chain *awsChain
}

// Retrieve implements aws.CredentialsProvider.
func (p *instanceRole) Retrieve(ctx context.Context) (aws.Credentials, error) {
	p.chain.mu.Lock()
	absent := p.chain.now().Before(p.chain.absent)
	p.chain.mu.Unlock()
	if absent {
		return aws.Credentials{}, errNoMetadata
	}
	ctx, cancel := context.WithTimeout(ctx, metadataPatience)
	defer cancel()
	creds, err := p.Provider.Retrieve(ctx)
	if err != nil {
		p.chain.mu.Lock()
		defer p.chain.mu.Unlock()
		p.chain.absent = p.chain.now().Add(failedPause)
		return aws.Credentials{}, errNoMetadata
	}
	return creds, nil
}
