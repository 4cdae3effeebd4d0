"""What was learned about each hazard beyond its figures, for the document."""

__all__ = ["FINDINGS"]

FINDINGS: dict[str, str] = {
    "R1": (
        "The library repeats nothing, so the worker goes on with its next read; its fourth "
        "and fifth task are done."
    ),
    "R2": (
        "A read is cancelled up to 32 steps of the event loop after the push is begun; a "
        "quarter to a third of the reads lose the task that the server had moved already. "
        "Nothing in the reference code cancels such a read: a graceful stop lets it run out."
    ),
    "R4": (
        "The reference code takes no task without an id, so the legacy producer is played "
        "from outside; its two tasks have one id, and are told apart by counting. A unique id "
        "in each payload closes the hazard by itself."
    ),
    "R5": (
        "The guide has no reaper; the script of an operator plays it, and the worker's own "
        "retry is held on the wire until the task is done."
    ),
    "R6": (
        "Both parts in one scenario: under noeviction nothing could be taken and a put was "
        "refused, and all was done when there was room again; under allkeys-lru the list, one "
        "key, was gone as a whole."
    ),
    "R7": (
        "The five tasks that the replica had are done after the promotion; those that the "
        "master alone had acknowledged are nowhere."
    ),
    "R8": (
        "With redis-py's `Redis(host=…)` as shipped one send is two entries, and the caller "
        "is told that it was accepted once. `Redis.from_url` sets no retries (8.1.0), and the "
        "reference client has none in both designs; there the caller is in doubt, and sends "
        "again itself."
    ),
    "R9": (
        "With redis-py's `Redis(host=…)` as shipped the read does not end within the 10 s "
        "that are watched; by `Redis.from_url` it raises after 5 s. The reference client's "
        "socket outlives the wait, in both designs."
    ),
    "P1": (
        "The worker's last Redis read before the switch may still take one copy, which NATS "
        "delivers again."
    ),
    "P2": (
        "The first put after the kill waits 5 s for its acknowledgement, the others are "
        "refused at once; every caller was told that the task is accepted."
    ),
    "P3": "Until phase 2 begins; then they run, with the replay of P5.",
    "P4": (
        "The caller was in doubt after 5 s; NATS had the publish in its socket, and stored "
        "and delivered it as soon as it went on."
    ),
    "P5": "All tasks of the phase, however many there are.",
    "P6": "A backlog that phase 1 wrote arrives through NATS, and its Redis copies are left.",
    "P7": "No advisory, no error, no count: the stream is empty.",
    "P8": (
        "The fallback reads the oldest copies first, so in a long phase a short outage is "
        "spent on finished tasks."
    ),
    "P9": (
        "The publishes failed on the producer's link; the worker's reads did not, so nothing "
        "fell back."
    ),
    "P10": "One task per slot of the worker, here one.",
    "P11": (
        "Not the fallback alone reorders, for both brokers keep the order: a task that one "
        "broker has not does."
    ),
    "P12": (
        "A link that is silent and not cut is no failed read, and then the worker does not "
        "even fall back; that is N9."
    ),
    "C1": "Nothing in the guide looks before Redis is removed.",
    "B1": "The tasks of the rollback itself went to Redis alone and are not replayed.",
    "B2": "As P8, all at once.",
    "B3": (
        "Half of them were in the stream at the rollback, half came from the producer that "
        "learned of it too late."
    ),
    "T1": "They stay until max-age.",
    "S1": (
        "The reference producer looks at the size before either write, in both designs; "
        "without that limit the caller is told that the task is accepted."
    ),
    "S2": "On both brokers, with tasks behind the junk that are done.",
    "N1": (
        "With the stream's leader killed no task was accepted for 4.0 to 7.7 s (twelve runs, "
        "median 4.3; the table says 5 to 7). A producer on another node that sends one task "
        "after the other with a pause of 10 ms was refused 356 to 731 times, within 0.2 to "
        "0.4 ms (medians; no responders), and never left in doubt. Nothing that had been "
        "accepted was lost."
    ),
    "N2": (
        "A task sent again 20 ms after its acknowledgement was dropped was stored again, as "
        "was the one sent after the window of 1 s: three copies, three executions."
    ),
    "N3": (
        "The three advisories came only when another worker pulled; raising max-deliver from "
        "3 to 10 revived none. To the letter of the guide (P10) the first kill loses all "
        "three."
    ),
    "N4": (
        "Ten tasks whose dependency was down for a second had used up their three deliveries "
        "1 to 5 ms after their first start (medians of twelve runs; 7 ms at most), and none "
        "was left when it was back. In the reference code they are dead letters, which the "
        "guide does not have: without those they would be stuck as in N3. To the letter of "
        "the guide (P10) the first failure loses each."
    ),
    "N5": (
        "With 100 unacknowledged tasks of a worker that hangs (SIGSTOP), 10 more waited "
        "beside an idle worker for the 2 s that were watched; AckWait would end it after 30 "
        "s. When the worker went on nothing was lost; some tasks were started after later "
        "ones of their repository. Masked by P10: nothing waits."
    ),
    "N6": (
        "A task of 1.5 s under an AckWait of 0.5 s was executed twice; the acknowledgement of "
        "the first attempt removed it while the second still ran, so the ack is no fence. In "
        "7 of 16 runs there was a third execution: a delivery was overdue because no worker "
        "had pulled, and the worker that had just acknowledged was given the task again 1.1 "
        "to 1.2 ms later (the three runs that were looked at), so the server had answered its "
        "pull before it had seen to its acknowledgement. An awaited acknowledgement "
        "(`ack_sync`) before the next pull should close that; it was not tried. Masked by "
        "P10: nothing."
    ),
    "N7": (
        "Consumer deleted and made anew by the next worker: 20 of 20 finished tasks were "
        "executed again."
    ),
    "N8": (
        "The reference worker compares the settings of the consumer with its own when it "
        "starts, in both designs, and ends with what differs; it does not use nats-py's "
        "`pull_subscribe`. That one does ignore them: it took an AckWait of 5 s without an "
        "error, and the consumer still had 30 s."
    ),
    "N9": (
        "A worker connected to a node that was stopped (and led nothing) did none of 10 tasks "
        "in the 12 s that were watched, six times the AckWait, while the two other nodes "
        "accepted them; it did them when the node went on. In 15 of 16 runs tasks were "
        "executed twice when it went on, as a rule the one that had been sent into the silent "
        "connection, in three runs 6 to 9 of the 10."
    ),
    "N10": (
        "With the sync interval as shipped (2 minutes) 200 acknowledged tasks made 0 fsync "
        "and fdatasync calls on the three nodes together (strace), and a power cut of all "
        "three lost 200 of 200; the 10 tasks of before the copy were kept."
    ),
}
