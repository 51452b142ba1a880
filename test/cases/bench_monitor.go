package cases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// What one monitor starts.
const (
	phaseForks = "forks"
	phaseExecs = "execs"
)

// monitored is an agent's monitor as Pacemaker calls it.
type monitored struct {
	agent string
	env   []string
	code  int // that it ends with while the service runs
}

// measureMonitors is the CPU time of the dearer of the two monitors that keep a service under watch. They start nothing.
func measureMonitors(ctx context.Context, m *managed) (sample, error) {
	holder, _, err := m.holder(ctx, m.anyUp())
	if err != nil {
		return sample{}, err
	}
	s := sample{Phases: map[string]float64{}}
	for name, agent := range map[string]monitored{
		"container": {agentFolder + "container", []string{"OCF_RESOURCE_INSTANCE=" + m.resource(), "OCF_RESKEY_service=" + service, "OCF_RESKEY_mode=container"}, 0},
		"rbd":       {agentFolder + "rbd", []string{"OCF_RESOURCE_INSTANCE=rbd-" + service, "OCF_RESKEY_service=" + service}, 8},
	} {
		one, err := agent.measure(ctx, holder)
		if err != nil {
			return s, err
		}
		if one.Phases[phaseForks] != 0 || one.Phases[phaseExecs] != 1 {
			return s, fmt.Errorf("a monitor of %s starts others: %v", name, one.Phases)
		}
		s.Phases[name] = one.Value
		s.Value = max(s.Value, one.Value)
		s.Phases[phaseForks], s.Phases[phaseExecs] = one.Phases[phaseForks], one.Phases[phaseExecs]
	}
	return s, nil
}

// stockMonitor is the same of ocf:heartbeat:lxc.
func stockMonitor(ctx context.Context, s *stock) (sample, error) {
	holder, err := s.holder(ctx)
	if err != nil {
		return sample{}, err
	}
	return monitored{
		agent: "/usr/lib/ocf/resource.d/heartbeat/lxc",
		env:   []string{"OCF_RESOURCE_INSTANCE=" + service, "OCF_RESKEY_container=" + service, "OCF_RESKEY_config=" + stockDirectory + "/config"},
	}.measure(ctx, holder)
}

// measure is the CPU time of one monitor in milliseconds, and what it starts.
func (m monitored) measure(ctx context.Context, n *lab.Node) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cpu, err := m.cpu(ctx, n)
	if err != nil {
		return sample{}, err
	}
	const trace = "/var/log/monitor.strace"
	follow := []string{"strace", "-f", "-e", "trace=clone,clone3,fork,vfork,execve", "-o", trace}
	if _, err := n.Exec(ctx, "sh", "-c", m.script(1, strings.Join(follow, " "))); err != nil {
		return sample{}, err
	}
	text, err := os.ReadFile(n.Path(trace))
	if err != nil {
		return sample{}, fmt.Errorf("read trace: %w", err)
	}
	forks, execs := births(string(text))
	return sample{Value: cpu, Phases: map[string]float64{phaseForks: float64(forks), phaseExecs: float64(execs)}}, nil
}

// cpu is the user and system time of one monitor, by the shell's own account of many.
func (m monitored) cpu(ctx context.Context, n *lab.Node) (float64, error) {
	const many = 100 // a shell counts in hundredths of a second
	out, err := n.Exec(ctx, "sh", "-c", m.script(many, "")+"\ntimes")
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	var user, system time.Duration
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, to := range []*time.Duration{&user, &system} { // the last line is the children's
		var parseErr error
		if fields := strings.Fields(lines[len(lines)-1]); len(fields) == 2 {
			*to, parseErr = time.ParseDuration(fields[i])
		} else {
			parseErr = errors.New("not two times")
		}
		if parseErr != nil {
			return 0, fmt.Errorf("read times: %w: %s", parseErr, out)
		}
	}
	return (user + system).Seconds() * 1000 / many, nil
}

// script calls the monitor a number of times, below another program if there is one, and ends at the first that is not well.
func (m monitored) script(times int, below string) string {
	return fmt.Sprintf(`export OCF_ROOT=/usr/lib/ocf OCF_RESKEY_CRM_meta_interval=10000 %s
i=0
while [ $i -lt %d ]; do
%s %s monitor >/dev/null 2>&1
[ $? = %d ] || exit 1
i=$((i+1))
done`, strings.Join(m.env, " "), times, below, m.agent, m.code)
}

// births counts in a trace the processes that came to be, threads left out, and the programs that began.
func births(trace string) (forks, execs int) {
	for line := range strings.Lines(trace) {
		_, call, _ := strings.Cut(line, " ")
		call = strings.TrimLeft(call, " ")
		name, _, _ := strings.Cut(call, "(")
		switch {
		case strings.Contains(call, " = -1 "):
		case name == "execve":
			execs++
		case name == "fork", name == "vfork", (name == "clone" || name == "clone3") && !strings.Contains(call, "CLONE_THREAD"):
			forks++
		}
	}
	return forks, execs
}
