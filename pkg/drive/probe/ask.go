package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// maxBody bounds what is read of an answer: the answers asked for are a few hundred bytes.
const maxBody = 64 << 10

func tcpAsk(address string) ask {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		return conn.Close()
	}
}

// newClient makes a client that keeps no connection, follows no redirect and uses no proxy: a probe speaks to
// the service's address and to nothing else.
func newClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func httpAsk(address, path string) ask {
	client, url := newClient(), urlOf(address, path, "/")
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("make request: %w", err)
		}
		status, _, err := answer(client, request)
		if err == nil && (status < 200 || status > 399) {
			err = fmt.Errorf("GET %s: HTTP status %d %s", url, status, http.StatusText(status))
		}
		return err
	}
}

// anonymous is the session string of a probe without credentials. oned looks the user up in its database before
// it refuses him, so a refusal of the login answers as much as the version would.
const anonymous = "keepone:keepone"

// versionAsk asks oned for its version, without credentials if no user is given.
func versionAsk(address, path, user string, secret func() (string, error)) ask {
	client, url := newClient(), urlOf(address, path, "/RPC2")
	return func(ctx context.Context) error {
		session := anonymous
		if user != "" && secret != nil {
			var err error
			if session, err = sessionOf(user, secret); err != nil {
				return err
			}
		}
		body, err := callXML(ctx, client, url, "one.system.version", session)
		if err != nil {
			return err
		}
		_, err = parseVersion(body)
		var refusal *refusalError
		if session == anonymous && errors.As(err, &refusal) && refusal.code == codeAuthentication {
			return nil
		}
		return err
	}
}

func raftAsk(address, path, user string, secret func() (string, error)) ask {
	client, url := newClient(), urlOf(address, path, "/RPC2")
	return func(ctx context.Context) error {
		session, err := sessionOf(user, secret)
		if err != nil {
			return err
		}
		body, err := callXML(ctx, client, url, "one.zone.raftstatus", session)
		if err != nil {
			return err
		}
		state, err := parseRaft(body)
		if err == nil && !state.serves() {
			err = fmt.Errorf("oned is a Raft %s, neither solo nor leader", state)
		}
		return err
	}
}

// sessionOf makes OpenNebula's session string.
func sessionOf(user string, secret func() (string, error)) (string, error) {
	password, err := secret()
	if err != nil {
		return "", fmt.Errorf("read password of %s: %w", user, err)
	}
	return user + ":" + password, nil
}

func execAsk(argv []string, run func(context.Context, []string) (int, string, error)) ask {
	return func(ctx context.Context) error {
		code, output, err := run(ctx, argv)
		switch {
		case err != nil:
			return fmt.Errorf("run %s: %w", argv[0], err)
		case code != 0:
			return fmt.Errorf("%s: exit code %d: %s", argv[0], code, excerpt(output))
		}
		return nil
	}
}

// callXML calls an XML-RPC method with one string and returns the answer's body.
func callXML(ctx context.Context, client *http.Client, url, method, argument string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(encodeCall(method, argument)))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	request.Header.Set("Content-Type", "text/xml")
	status, body, err := answer(client, request)
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		return nil, fmt.Errorf("%s: HTTP status %d %s", method, status, http.StatusText(status))
	}
	return body, nil
}

// answer sends a request and reads at most maxBody of what comes back.
func answer(client *http.Client, request *http.Request) (status int, body []byte, err error) {
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	return response.StatusCode, body, nil
}

func urlOf(address, path, otherwise string) string {
	if path == "" {
		path = otherwise
	}
	return "http://" + address + "/" + strings.TrimPrefix(path, "/")
}

// excerpt is the beginning of what a service said, fit for a line of a log.
func excerpt(s string) string {
	const most = 160
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
