package harness

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// RuntimeAPI stands for AWS Lambda: a function's process asks it for events and answers them, one after the other.
type RuntimeAPI struct {
	server *httptest.Server
	events chan *invocation

	mu      sync.Mutex
	n       int
	pending map[string]*invocation // given to the process, by request id
}

// ErrFunction: the function answered with an error, or not in time. Lambda counts all of the event as failed.
var ErrFunction = errors.New("function failed")

type invocation struct {
	event    []byte
	deadline time.Time
	answer   chan answer // of one
}

type answer struct {
	body []byte
	err  error
}

const runtimeBase = "/2018-06-01/runtime/"

// NewRuntimeAPI starts it; it ends with the test.
func NewRuntimeAPI(t *testing.T) *RuntimeAPI {
	a := &RuntimeAPI{events: make(chan *invocation), pending: make(map[string]*invocation)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+runtimeBase+"invocation/next", a.next)
	mux.HandleFunc("POST "+runtimeBase+"invocation/{id}/response", func(w http.ResponseWriter, r *http.Request) { a.answered(w, r, nil) })
	mux.HandleFunc("POST "+runtimeBase+"invocation/{id}/error", func(w http.ResponseWriter, r *http.Request) { a.answered(w, r, ErrFunction) })
	mux.HandleFunc("POST "+runtimeBase+"init/error", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // what is lost of it is missing in the log only
		t.Logf("function does not start: %s", b)
		w.WriteHeader(http.StatusAccepted)
	})
	a.server = httptest.NewServer(mux)
	t.Cleanup(func() {
		a.server.CloseClientConnections() // a process waits for the next event
		a.server.Close()
	})
	return a
}

// Env is what Lambda sets for the process.
func (a *RuntimeAPI) Env() []string {
	return []string{
		"AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(a.server.URL, "http://"), "AWS_LAMBDA_FUNCTION_NAME=alerter",
		"AWS_LAMBDA_FUNCTION_VERSION=1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128", "_HANDLER=bootstrap",
	}
}

// Invoke hands an event to the process and returns its answer.
func (a *RuntimeAPI) Invoke(event []byte, limit time.Duration) ([]byte, error) {
	inv := &invocation{event: event, deadline: time.Now().Add(limit), answer: make(chan answer, 1)}
	timeout := time.After(limit)
	select {
	case a.events <- inv:
	case <-timeout:
		return nil, fmt.Errorf("%w: nobody asks for the event within %v", ErrFunction, limit)
	}
	select {
	case got := <-inv.answer:
		return got.body, got.err
	case <-timeout:
		return nil, fmt.Errorf("%w: no answer within %v", ErrFunction, limit)
	}
}

// next is also how a process that was started again tells that its predecessor ended: what that was given has failed.
func (a *RuntimeAPI) next(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	for id, inv := range a.pending {
		inv.answer <- answer{err: fmt.Errorf("%w: its process ended", ErrFunction)}
		delete(a.pending, id)
	}
	a.mu.Unlock()
	select {
	case inv := <-a.events:
		a.mu.Lock()
		a.n++
		id := "request-" + strconv.Itoa(a.n)
		a.pending[id] = inv
		a.mu.Unlock()
		w.Header().Set("Lambda-Runtime-Aws-Request-Id", id)
		w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(inv.deadline.UnixMilli(), 10))
		w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:alerter")
		_, _ = w.Write(inv.event) // a process that is gone does not answer
	case <-r.Context().Done():
	}
}

func (a *RuntimeAPI) answered(w http.ResponseWriter, r *http.Request, failed error) {
	body, err := io.ReadAll(r.Body)
	id := r.PathValue("id")
	a.mu.Lock()
	inv := a.pending[id]
	delete(a.pending, id)
	a.mu.Unlock()
	if err != nil || inv == nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	if failed != nil {
		failed = fmt.Errorf("%w: %s", failed, body)
	}
	inv.answer <- answer{body, failed}
}
