package chaos

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// kind is what befalls a victim.
type kind string

const (
	kill    kind = "kill"    // kill -9, and started again at once
	lose    kind = "lose"    // kill -9, and away for a while
	restart kind = "restart" // SIGTERM, and started again at once
	leave   kind = "leave"   // SIGTERM, and away for a while
	join    kind = "join"    // a member more, for a while
	freeze  kind = "freeze"  // SIGSTOP for longer than a session lasts, then SIGCONT: a zombie
	cut     kind = "cut"     // its connections are cut
	stall   kind = "stall"   // its connections carry nothing for a while
	mute    kind = "mute"    // those with which it writes carry nothing for a while; then it is killed
	crash   kind = "crash"   // the broker's: kill -9, and away for a while
	hush    kind = "hush"    // the load's: it is stopped, so that partitions fall silent, and catches up later
	full    kind = "full"    // the disk's: no byte fits any more, for a while
)

// The victims that are not processes.
const (
	theBroker = "broker"
	theLoad   = "load"
	theDisk   = "disk"
)

// action is one fault.
type action struct {
	At     time.Duration // since the load began
	Kind   kind
	Victim string
	For    time.Duration // how long it lasts; 0 is a moment
}

func (a action) String() string {
	s := fmt.Sprintf("%6.2fs %s %s", a.At.Seconds(), a.Kind, a.Victim)
	if a.For > 0 {
		s += fmt.Sprintf(" for %.2fs", a.For.Seconds())
	}
	return s
}

// service is a group of processes of one kind. Those beyond the first Up are spare: they are there while they join.
type service struct {
	Name      string
	Members   int
	Up        int
	Arguments []string
	Mute      bool // it writes no records anyway
}

func (s service) members() (names []string) {
	for i := range s.Members {
		names = append(names, fmt.Sprintf("%s-%d", s.Name, i+1))
	}
	return names
}

var services = []service{
	{Name: "router", Members: 3, Up: 2, Arguments: []string{"route"}},
	{Name: "detector", Members: 3, Up: 2, Arguments: []string{"detect"}},
	{Name: "alerter", Members: 2, Up: 2, Arguments: []string{"alert"}, Mute: true},
}

// mix is how often which faults come.
type mix struct {
	Kinds    map[kind]int // by weight
	Services []string     // whose processes are victims
	Gap      time.Duration
	// Rest is how long no member of a service vanishes after one has without leaving its group, or after the broker was away.
	Rest time.Duration
}

// everything is the mix of the chaos run.
func everything(rest time.Duration) mix {
	return mix{
		Kinds:    map[kind]int{kill: 6, lose: 2, restart: 2, leave: 2, join: 3, freeze: 3, cut: 4, stall: 3, mute: 2, crash: 2, full: 2, hush: 2},
		Services: []string{"router", "detector", "alerter"},
		Gap:      2 * time.Second,
		Rest:     rest,
	}
}

const (
	warmUp = 3 * time.Second // the first fault comes after it
	// between two crashes the broker is up for at least so long: with less, nothing but reconnecting would be tested.
	brokerRest = 12 * time.Second
	// longestHush is how long the load is stopped at most.
	longestHush = idleTimeout + 4*time.Second
)

// newPlan returns what happens within a time of load. It depends on nothing but its arguments.
func newPlan(seed uint64, load time.Duration, m mix) (plan []action) {
	rng := rand.New(rand.NewPCG(seed, 0x6368616f73))
	between := func(low, high time.Duration) time.Duration {
		return (low + time.Duration(rng.Int64N(int64(high-low)))).Round(10 * time.Millisecond)
	}
	var deck []kind
	for _, k := range slices.Sorted(maps.Keys(m.Kinds)) {
		deck = append(deck, slices.Repeat([]kind{k}, m.Kinds[k])...)
	}
	busy := map[string]time.Duration{} // until when, by victim and by service
	for at := warmUp; at < load; at += between(m.Gap/4, m.Gap*7/4) {
		a := action{At: at, Kind: deck[rng.IntN(len(deck))]}
		switch a.Kind {
		case lose, leave:
			a.For = between(2*time.Second, 9*time.Second)
		case join:
			a.For = between(6*time.Second, 15*time.Second)
		case freeze:
			a.For = between(7500*time.Millisecond, 10*time.Second) // the session times out after 6 s
		case stall:
			a.For = between(time.Second, 9*time.Second)
		case mute:
			a.For = between(time.Second, 3*time.Second)
		case crash:
			a.For = between(100*time.Millisecond, 6*time.Second)
		case full:
			a.For = between(3*time.Second, 8*time.Second)
		case hush:
			a.For = between(idleTimeout+time.Second, longestHush)
		}
		var free []string
		switch a.Kind {
		case crash:
			free = []string{theBroker}
		case full:
			free = []string{theDisk}
		case hush:
			if at+a.For < load-time.Second { // it must not end meanwhile
				free = []string{theLoad}
			}
		default:
			for _, s := range services {
				if !slices.Contains(m.Services, s.Name) || a.Kind == mute && s.Mute || vanishes(a.Kind) && busy[s.Name] > at {
					continue
				}
				names := s.members()
				if a.Kind == join {
					free = append(free, names[s.Up:]...)
				} else {
					free = append(free, names[:s.Up]...)
				}
			}
		}
		free = slices.DeleteFunc(free, func(v string) bool { return busy[v] > at })
		if len(free) == 0 {
			continue
		}
		a.Victim = free[rng.IntN(len(free))]
		until := at + a.For
		busy[a.Victim] = until + time.Second
		if a.Kind == crash {
			busy[a.Victim] = until + brokerRest
			for _, s := range services { // all members join anew, and none may die meanwhile
				busy[s.Name] = max(busy[s.Name], until+m.Rest)
			}
		}
		if name, _, isMember := strings.Cut(a.Victim, "-"); isMember && vanishes(a.Kind) {
			busy[name] = until + m.Rest
		}
		plan = append(plan, a)
	}
	return plan
}

// vanishes reports whether the group has to find out by itself that a member is gone.
func vanishes(k kind) bool {
	return slices.Contains([]kind{kill, lose, freeze, mute}, k)
}
