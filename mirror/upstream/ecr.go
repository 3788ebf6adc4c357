package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/smithy-go"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// ecrSource gets ECR's authorization tokens with the AWS credentials that the
// process has.
type ecrSource struct {
	whole
	host    ecrHost
	roleARN string // to assume first; empty: none
	chain   *awsChain
}

// login implements source. Where AWS says that there are no credentials, or
// that those there are may not get a token, it has none: the client's own
// credentials are next.
func (s *ecrSource) login(ctx context.Context, _ string) (login, error) {
	cfg, err := s.chain.config(ctx, s.host.region, s.roleARN)
	if errors.Is(err, errNoMetadata) {
		return login{}, nil
	}
	if err != nil {
		return login{}, err
	}
	token, expires, err := s.token(ctx, cfg)
	switch {
	case forbidden(err):
		s.chain.log.WithError(awsError("get ECR token", err)).Warn("the AWS credentials found may not use ECR")
		return login{}, nil
	case err != nil:
		return login{}, awsError("get ECR token in "+s.host.region, err)
	}
	content, err := base64.StdEncoding.DecodeString(token)
	username, secret, ok := strings.Cut(string(content), ":")
	if err != nil || !ok || username == "" || secret == "" {
		return login{}, errors.New("get ECR token: what came is not a token")
	}
	return login{Credential: auth.Credential{Username: username, Password: secret}, expires: expires}, nil
}

// token asks the API that h's registries belong to.
func (s *ecrSource) token(ctx context.Context, cfg aws.Config) (token string, expires time.Time, err error) {
	if s.host.public {
		out, err := ecrpublic.NewFromConfig(cfg, func(o *ecrpublic.Options) {
			if o.BaseEndpoint == nil && s.host.dualStack {
				o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
			}
		}).GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
		if err != nil || out.AuthorizationData == nil {
			return "", time.Time{}, err
		}
		return aws.ToString(out.AuthorizationData.AuthorizationToken), aws.ToTime(out.AuthorizationData.ExpiresAt), nil
	}
	out, err := ecr.NewFromConfig(cfg, func(o *ecr.Options) {
		if o.BaseEndpoint != nil {
			return // whoever names the API's address means that one
		}
		if s.host.dualStack {
			o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
		}
		if s.host.fips {
			o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
		}
	}).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil || len(out.AuthorizationData) == 0 {
		return "", time.Time{}, err
	}
	data := out.AuthorizationData[0]
	return aws.ToString(data.AuthorizationToken), aws.ToTime(data.ExpiresAt), nil
}

// forbidden reports whether AWS refused the principal, not the request.
func forbidden(err error) bool {
	resp, ok := errors.AsType[*awshttp.ResponseError](err)
	api, said := errors.AsType[smithy.APIError](err)
	return ok && said && api.ErrorCode() == "AccessDeniedException" && resp.HTTPStatusCode()/100 == 4
}

// awsError says what AWS said, by its code only: messages name principals, and
// errors of the transport hold URLs.
func awsError(doing string, err error) error {
	switch api, ok := errors.AsType[smithy.APIError](err); {
	case errors.Is(err, errNoMetadata):
		return err
	case ok:
		return fmt.Errorf("%s: AWS answered %s", doing, sanitise(api.ErrorCode()))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", doing, context.DeadlineExceeded)
	default:
		return fmt.Errorf("%s: AWS did not answer as it should", doing)
	}
}
