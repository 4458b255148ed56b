// Package registry is how registries are spoken to through containers/image: with patience, with logins that go nowhere else and are
// renewed when they are taken back, and with failures that have classes.
package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/containers/image/v5/docker"

	"github.com/kimg/kimg"
)

// Classify returns an error with its class. One that has a class already, or is no failure of a network, keeps what it is.
func Classify(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || kimg.ClassOf(err) != kimg.ErrInternal && !isNetwork(err) {
		return err
	}
	if says(err, "decoding bearer token") {
		return kimg.Errorf(kimg.ErrAuth, "", "the answer of the server for tokens is none") // the library shows how it begins: with a token
	}
	class := classOf(err)
	if at := new(url.Error); errors.As(err, &at) {
		if address, query, _ := strings.Cut(at.URL, "?"); query != "" {
			err = discreet{err, at.URL, address}
		}
	}
	return &kimg.Error{Class: class, Err: err}
}

// discreet is an error that does not say what an address ends in: whoever reads that of a blob may read the blob.
type discreet struct {
	error
	url, address string
}

func (d discreet) Error() string { return strings.ReplaceAll(d.error.Error(), d.url, d.address) }

func (d discreet) Unwrap() error { return d.error }

// classOf goes by types where the library has them, and by its texts where it does not.
func classOf(err error) kimg.Class {
	var unauthorized docker.ErrUnauthorizedForCredentials
	var status docker.UnexpectedHTTPStatusError
	var unknown x509.UnknownAuthorityError
	var verification *tls.CertificateVerificationError
	says := func(words ...string) bool { return says(err, words...) }
	switch {
	case errors.As(err, &unauthorized), loggedOut(err), says("denied", "statuscode: 403", "getting username and password"),
		says("requesting bearer token") && errors.As(err, &status) && status.StatusCode/100 == 4:
		return kimg.ErrAuth
	case errors.Is(err, docker.ErrTooManyRequests), says("toomanyrequests", "statuscode: 429"):
		return kimg.ErrRateLimit
	case errors.As(err, &unknown), errors.As(err, &verification), says("x509:"):
		return kimg.ErrTLS
	case errors.As(err, &status) && status.StatusCode == 404, says("manifest unknown", "name unknown", "blob unknown", "not known to registry", "may not exist", "statuscode: 404"):
		return kimg.ErrNotFound
	case says("unsupported: ", "statuscode: 405"):
		return kimg.ErrUnsupported
	case says("exceeded maximum allowed size"):
		return kimg.ErrLimit // of the library for documents
	case says("does not match"):
		return kimg.ErrIntegrity // the manifest against the digest in the reference
	}
	return kimg.ErrNetwork
}

// loggedOut tells whether a registry wants another login: status 401.
func loggedOut(err error) bool {
	return err != nil && says(err, "unauthorized", "authentication required", "statuscode: 401")
}

// says tells whether an error has one of some words in lower case.
func says(err error, words ...string) bool {
	text := strings.ToLower(err.Error())
	return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) })
}

func isNetwork(err error) bool {
	var no net.Error
	return errors.As(err, &no)
}
