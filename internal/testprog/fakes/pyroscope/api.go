package pyroscope

import (
	"bytes"
	stdcontext "context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
)

// request is what handlers below need of the HTTP request.
type request struct {
	tenant string
	of     *Request
}

type requestKey struct{}

func context(r *http.Request, of *Request) stdcontext.Context {
	return stdcontext.WithValue(r.Context(), requestKey{}, &request{tenant: r.Header.Get("X-Scope-OrgID"), of: of})
}

func requestOf(ctx stdcontext.Context) *request {
	return ctx.Value(requestKey{}).(*request)
}

// tenant is who the profiles belong to; an error is one of the sender.
func (s *Server) tenant(r *request) (string, error) {
	switch {
	case !s.o.MultiTenant:
		return "anonymous", nil
	case r.tenant == "":
		return "", errors.New("no org id")
	case strings.ContainsAny(r.tenant, "|/\\"):
		return "", fmt.Errorf("tenant %q: not for writing", r.tenant)
	}
	return r.tenant, nil
}

// pusher is the Push API.
type pusher struct{ s *Server }

// Push is not atomic: what is good in a request is taken, whatever becomes of the rest.
func (p *pusher) Push(ctx stdcontext.Context, r *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	of := requestOf(ctx)
	tenant, err := p.s.tenant(of)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnauthenticated, err)
	}
	var errs []error
	some := false
	for _, series := range r.Msg.Series {
		for _, sample := range series.Samples {
			some = true
			in := &incoming{api: "push", tenant: tenant, raw: sample.RawProfile}
			for _, l := range series.Labels {
				in.labels = append(in.labels, Label{l.Name, l.Value})
			}
			if err := p.s.take(in); err != nil {
				errs = append(errs, err)
				continue
			}
			of.of.Profiles++
		}
	}
	if !some {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("no profiles received"))
	}
	if len(errs) > 0 {
		return nil, connect.NewError(codeOf(errs[0]), errors.Join(errs...))
	}
	return connect.NewResponse(&pushv1.PushResponse{}), nil
}

func codeOf(err error) connect.Code {
	var r *refusal
	if errors.As(err, &r) {
		return r.code
	}
	return connect.CodeUnknown
}

// answerError is how /ingest says it.
func answerError(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	text, _ := json.Marshal(map[string]string{"code": "unknown", "message": err.Error()}) // strings always can be
	_, _ = w.Write(text)                                                                  // the client may be gone
}

// ingest is POST /ingest: the profile as a part of a form, or as the body.
func (s *Server) ingest(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "POST is wanted", http.StatusMethodNotAllowed)
		return
	}
	of := requestOf(r.Context())
	tenant, err := s.tenant(of)
	if err != nil {
		answerError(w, http.StatusUnauthorized, err)
		return
	}
	app, tags, err := parseApplication(r.URL.Query().Get("name"))
	if err != nil {
		answerError(w, http.StatusBadRequest, err)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			answerError(w, http.StatusRequestEntityTooLarge, fmt.Errorf("request body too large: %w", err))
			return
		}
		answerError(w, http.StatusRequestTimeout, err)
		return
	}
	in := &incoming{api: "ingest", tenant: tenant, raw: body}
	if r.URL.Query().Get("format") != "pprof" {
		if err := in.form(r.Header.Get("Content-Type"), body); err != nil {
			answerError(w, http.StatusUnprocessableEntity, err)
			return
		}
	}
	if len(in.raw) == 0 { // 200, and nothing is taken
		return
	}
	in.ingested(app, tags, r.URL.Query())
	if err := s.take(in); err != nil {
		answerError(w, ingestStatus(err), err)
		return
	}
	of.of.Profiles++
}

func ingestStatus(err error) int {
	if codeOf(err) == connect.CodeResourceExhausted {
		return http.StatusTooManyRequests
	}
	return http.StatusUnprocessableEntity
}

// form takes the parts profile and sample_type_config.
func (in *incoming) form(contentType string, body []byte) error {
	in.raw = nil
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/form-data" {
		return fmt.Errorf("content type %q: only forms, and format=pprof, are known here", contentType)
	}
	form, err := multipart.NewReader(bytes.NewReader(body), params["boundary"]).ReadForm(64 << 20)
	if err != nil {
		return err
	}
	defer func() { _ = form.RemoveAll() }() // files of large parts, in the directory for such
	parts := map[string][]byte{}
	for name, files := range form.File {
		f, err := files[0].Open()
		if err != nil {
			return err
		}
		parts[name], err = io.ReadAll(f)
		f.Close()
		if err != nil {
			return err
		}
	}
	if parts["prev_profile"] != nil {
		return errors.New("unsupported client version")
	}
	in.raw = parts["profile"]
	if c := parts["sample_type_config"]; c != nil {
		return json.Unmarshal(c, &in.config)
	}
	return nil
}

// ingested makes labels of what the query says.
func (in *incoming) ingested(app string, tags []Label, q url.Values) {
	spy := q.Get("spyName")
	if spy == "" {
		spy = "unknown"
	}
	in.labels = []Label{{"__delta__", "false"}, {"pyroscope_spy", spy}}
	named := false
	for _, l := range tags {
		named = named || l.Name == "service_name"
		if !strings.HasPrefix(l.Name, "__") || l.Name == "__session_id__" {
			in.labels = append(in.labels, l)
		}
	}
	if !named {
		in.labels = append(in.labels, Label{"service_name", app})
	}
	if from, err := strconv.ParseInt(q.Get("from"), 10, 64); err == nil {
		in.from = from
	}
}

var (
	applicationName = regexp.MustCompile(`^[a-zA-Z0-9_./-]+$`)
	tagName         = regexp.MustCompile(`^[a-zA-Z0-9_.]+$`)
)

// parseApplication reads NAME{KEY=VALUE,...}, in which nothing can be quoted. Of tags of one name the last counts.
func parseApplication(text string) (string, []Label, error) {
	app, rest, _ := strings.Cut(text, "{")
	app = strings.TrimSpace(app)
	if !applicationName.MatchString(app) {
		return "", nil, fmt.Errorf("name: invalid application name %q", app)
	}
	at := map[string]int{}
	var tags []Label
	for rest != "" && rest[0] != '}' {
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		end := strings.IndexAny(after, ",}")
		if end < 0 { // the end is missing: so is the tag
			break
		}
		name = strings.TrimSpace(name)
		if !tagName.MatchString(name) {
			return "", nil, fmt.Errorf("name: invalid label name %q", name)
		}
		l := Label{name, strings.TrimSpace(after[:end])}
		if i, ok := at[name]; ok {
			tags[i] = l
		} else {
			at[name] = len(tags)
			tags = append(tags, l)
		}
		rest = after[end+1:]
	}
	return app, tags, nil
}
