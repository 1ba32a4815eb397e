package awstest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// transactions stands before dynalite and gives it what it lacks: TransactWriteItems, and the settings of the time to live, which delete nothing. Every other
// request passes. Conditions are evaluated by dynalite itself: a transaction writes its items one after another while no other request is
// under way, and puts back what was there if one of them fails.
type transactions struct {
	target string
	pass   *httputil.ReverseProxy

	mu sync.RWMutex // held exclusively by a transaction, shared by every other request

	ttl sync.Map // the attribute of each table's time to live
}

// newTransactions returns the URL of a stand-in before the one at a URL. It lives as long as the process.
func newTransactions(target string) (string, error) {
	u, err := url.Parse(target)
	if err != nil {
		return "", err
	}
	p := &transactions{target: target, pass: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }}}
	p.pass.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) } // whoever asks is gone
	return httptest.NewServer(p).URL, nil
}

const targetPrefix = "DynamoDB_20120810."

func (p *transactions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Header.Get("X-Amz-Target") {
	case targetPrefix + "TransactWriteItems":
		p.answer(w, r, p.transact)
	case targetPrefix + "UpdateTimeToLive", targetPrefix + "DescribeTimeToLive":
		p.answer(w, r, p.timeToLive)
	default:
		// Whole, and never closed: the server closes the body of a request that is answered, and the transport, which may still look for its end then, takes
		// that for a failure and closes the connection in the middle of the answer.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // whoever asks is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		p.mu.RLock()
		defer p.mu.RUnlock()
		p.pass.ServeHTTP(w, r)
	}
}

type object = map[string]any

func (p *transactions) answer(w http.ResponseWriter, r *http.Request, f func(http.Header, []byte) (int, any)) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // whoever asks is gone
	}
	status, out := f(r.Header, body)
	b, err := json.Marshal(out)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.Header().Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(b)), 10))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

func refusal(code, message string) object {
	return object{"__type": "com.amazonaws.dynamodb.v20120810#" + code, "message": message}
}

// action is an item of a transaction. Its fields are passed on as they are.
type action struct {
	op     string // of dynalite
	fields map[string]json.RawMessage
	table  string
	key    map[string]json.RawMessage
	old    json.RawMessage // the item before; nil: there was none
	done   bool
}

// transact executes a transaction, or nothing of it.
func (p *transactions) transact(h http.Header, body []byte) (int, any) {
	var in struct {
		TransactItems []map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return http.StatusBadRequest, refusal("SerializationException", err.Error())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var actions []*action
	seen := map[string]bool{}
	for _, it := range in.TransactItems {
		for kind, fields := range it {
			a := &action{op: kind + "Item", fields: fields}
			if err := p.prepare(h, kind, a); err != nil {
				return http.StatusBadRequest, refusal("ValidationException", err.Error())
			}
			id, err := json.Marshal([]any{a.table, a.key})
			if err != nil || seen[string(id)] {
				return http.StatusBadRequest, refusal("ValidationException", "Transaction request cannot include multiple operations on one item")
			}
			seen[string(id)] = true
			actions = append(actions, a)
		}
	}
	reasons, codes, failed := make([]object, len(actions)), make([]string, len(actions)), false
	for i, a := range actions {
		codes[i], reasons[i] = "None", object{"Code": "None"}
		code, message := p.write(h, a)
		if code == "" {
			continue
		}
		failed, codes[i] = true, code
		reasons[i] = object{"Code": code, "Message": message}
		if a.old != nil && string(a.fields["ReturnValuesOnConditionCheckFailure"]) == `"ALL_OLD"` && code == "ConditionalCheckFailed" {
			reasons[i]["Item"] = a.old
		}
	}
	if !failed {
		return http.StatusOK, object{}
	}
	for _, a := range actions {
		if err := p.restore(h, a); err != nil {
			return http.StatusInternalServerError, refusal("InternalServerError", err.Error())
		}
	}
	out := refusal("TransactionCanceledException", "Transaction cancelled, please refer cancellation reasons for specific reasons ["+strings.Join(codes, ", ")+"]")
	out["Message"] = out["message"]
	delete(out, "message")
	out["CancellationReasons"] = reasons
	return http.StatusBadRequest, out
}

// prepare finds what an action is about, and what is there.
func (p *transactions) prepare(h http.Header, kind string, a *action) error {
	if err := json.Unmarshal(a.fields["TableName"], &a.table); err != nil {
		return err
	}
	if kind == "Put" {
		var item map[string]json.RawMessage
		if err := json.Unmarshal(a.fields["Item"], &item); err != nil {
			return err
		}
		names, err := p.keyNames(h, a.table)
		if err != nil {
			return err
		}
		a.key = make(map[string]json.RawMessage)
		for _, n := range names {
			a.key[n] = item[n]
		}
	} else if err := json.Unmarshal(a.fields["Key"], &a.key); err != nil {
		return err
	}
	status, answer, err := p.call(h, "GetItem", object{"TableName": a.table, "Key": a.key, "ConsistentRead": true})
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("GetItem: %w: %s", err, answer)
	}
	var got struct{ Item json.RawMessage }
	if err := json.Unmarshal(answer, &got); err != nil {
		return err
	}
	a.old = got.Item
	if kind == "ConditionCheck" { // as a write that changes nothing
		a.op = "DeleteItem"
		if a.old != nil {
			a.op = "PutItem"
			a.fields["Item"] = a.old
		}
	}
	return nil
}

func (p *transactions) keyNames(h http.Header, table string) ([]string, error) {
	_, answer, err := p.call(h, "DescribeTable", object{"TableName": table})
	if err != nil {
		return nil, err
	}
	var d struct {
		Table struct {
			KeySchema []struct{ AttributeName string }
		}
	}
	if err := json.Unmarshal(answer, &d); err != nil || len(d.Table.KeySchema) == 0 {
		return nil, fmt.Errorf("table %s: %w: %s", table, err, answer)
	}
	var names []string
	for _, k := range d.Table.KeySchema {
		names = append(names, k.AttributeName)
	}
	return names, nil
}

// write carries out an action, and returns the code of why it was refused.
func (p *transactions) write(h http.Header, a *action) (code, message string) {
	in := object{}
	for name, v := range a.fields {
		if name != "ReturnValuesOnConditionCheckFailure" && (name != "Key" || a.op != "PutItem") {
			in[name] = v
		}
	}
	status, answer, err := p.call(h, a.op, in)
	if err != nil {
		return "InternalServerError", err.Error()
	}
	if status == http.StatusOK {
		a.done = true
		return "", ""
	}
	var e struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	_ = json.Unmarshal(answer, &e)
	switch _, name, _ := strings.Cut(e.Type, "#"); name {
	case "ConditionalCheckFailedException":
		return "ConditionalCheckFailed", "The conditional request failed"
	case "ValidationException":
		return "ValidationError", e.Message
	default:
		return name, e.Message
	}
}

// restore undoes an action.
func (p *transactions) restore(h http.Header, a *action) error {
	if !a.done {
		return nil
	}
	op, in := "DeleteItem", object{"TableName": a.table, "Key": a.key}
	if a.old != nil {
		op, in = "PutItem", object{"TableName": a.table, "Item": a.old}
	}
	status, answer, err := p.call(h, op, in)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("roll back: %s", answer)
	}
	return err
}

// call asks dynalite, as whoever asked.
func (p *transactions) call(h http.Header, op string, in any) (int, []byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, p.target, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for _, name := range []string{"Authorization", "Content-Type", "X-Amz-Date", "X-Amz-Security-Token"} {
		req.Header.Set(name, h.Get(name))
	}
	req.Header.Set("X-Amz-Target", targetPrefix+op)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// timeToLive keeps the setting of a table.
func (p *transactions) timeToLive(h http.Header, body []byte) (int, any) {
	var in struct {
		TableName               string
		TimeToLiveSpecification *struct {
			AttributeName string
			Enabled       bool
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return http.StatusBadRequest, refusal("SerializationException", err.Error())
	}
	if s := in.TimeToLiveSpecification; s != nil {
		p.ttl.Store(in.TableName, s.AttributeName)
		return http.StatusOK, object{"TimeToLiveSpecification": s}
	}
	if name, ok := p.ttl.Load(in.TableName); ok {
		return http.StatusOK, object{"TimeToLiveDescription": object{"TimeToLiveStatus": "ENABLED", "AttributeName": name}}
	}
	return http.StatusOK, object{"TimeToLiveDescription": object{"TimeToLiveStatus": "DISABLED"}}
}
