"""VBDs as three coupled machines, without I/O, a clock or tasks: facts in, what to do out.

`states` has the rules, as tables; `machine` keeps to them for one VBD, `backend` for all of one
backend; `facts` are what they are told and give back. `dispersion`, `counters` and `retry` are
what else a VBD's directory shows, `observed` maps a tapdisk that is only watched to the same
states, and `drawing` prints the tables.

A driver has one task for a backend's facts, or sees otherwise to it that they come one at a time:
`ask` and `hear` answer with a list of effects, which it carries out in order before it tells the
next fact. None of them may be carried out by calling `ask` or `hear` from inside. In short::

    def told(vbd, effects):
        for effect in effects:
            match effect:
                case Launch():                spawn(vbd)               # Launched, LaunchFailed
                case Send(message=message):   send(vbd, message)       # Replied, ErrorReplied
                case Kill():                  kill(vbd)                # by its pidfd, if at all
                case StartTimer(timer=timer, seconds=seconds):
                    timers[vbd] = spawn_sleep(seconds, vbd, timer)     # TimedOut
                case StopTimer():             timers[vbd].cancel()
                case Announce() | Changed() | Fault():  post(vbd, effect)  # an event each
                case Destroy():               free(vbd)
                case Probe():                 if exists(vbd): told(vbd, backend.appear(vbd))

    told("5", backend.appear("5"))                                     # mkdir vbd/5
    told("5", backend.ask("5", request_named("start")))                # echo start > vbd/5/control
    told("5", backend.hear("5", Launched(pid=27734)))
    told("5", backend.vanish("5"))                                     # rmdir vbd/5

What it has to see to:

- Facts of a tapdisk come in the order in which they happened, and none after its Exited. Exited is
  told of every process that was Launched, and of one that ended before (then LaunchFailed is not).
- With today's protocol a minor is ATTACHed when PID is sent, so that a channel in PID has something
  to be closed; CLOSE is CLOSE and DETACH, and answered when both are. A tapdisk that has detached
  its last minor exits by itself; one that has others left is Released.
- A send has the driver's own time limits for connecting and writing. For the answer there is the
  timer: a driver that gives up the connection at TimedOut tells SendFailed afterwards, and one that
  keeps it may still tell the answer.
- ErrorReplied and SendFailed are of what a Send asked for; a LIST or STATS of the driver's own that
  fails is none of the machine's.
- What was asked for is refused by `ask` (Down, Busy) or `request_named` (Invalid); nothing has
  changed then. Whether there is an image to open is the driver's to know, before it asks to start.
- A VBD whose `vbd` is DEAD is to be listed no more; it is freed when its tapdisk has exited.
"""
