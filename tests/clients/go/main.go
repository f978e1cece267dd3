// What any application with the AWS SDK for Go does, and nothing else.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/aws/aws-sdk-go-v2/config"
)

func main() {
	answer := map[string]string{}
	if token, err := sessionToken(context.Background()); err != nil {
		answer["error"] = err.Error()
	} else {
		answer["session_token"] = token
	}
	if json.NewEncoder(os.Stdout).Encode(answer) != nil {
		os.Exit(1)
	}
}

func sessionToken(ctx context.Context) (string, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return "", err
	}
	credentials, err := settings.Credentials.Retrieve(ctx)
	if err == nil && !credentials.HasKeys() {
		err = errors.New("credentials without keys, which cannot sign")
	}
	return credentials.SessionToken, err
}
