"""What the figures of the price say, in words that take their numbers from them."""

from tests.evidence.price_variants import REPLICA

__all__ = ["conclusion", "remarks"]


def remarks(figures):
    """A paragraph for each situation, by its name."""

    def ratio(label, kind="done"):
        return f"{figures[label][f'{kind}_ratio']:.2f}"

    def in_turn(label, name):
        return figures[label][f"in_turn_worker_{name}"]

    round_ = figures["dual_write: done_store,reconcile"]
    return {
        "dual_write": (
            "Both brokers are written, Redis is read. The producer pays for the outbox alone, whose"
            f" write to the disk leaves {ratio('dual_write: outbox', 'put')} of the guide's rate;"
            " it sends nothing more than the guide does. `reconcile` goes by the clock, every five"
            f" seconds: a round has {round_['reconcile_round_nats_out']:.1f} requests to NATS and"
            f" {round_['reconcile_round_redis_turns']:.2f} turns of Redis for each task that lies"
            " on both brokers."
        ),
        "redis_only": (
            "Only the done-store adds turns, one before a task and one after it. At once they are"
            " shared, and what is left is the work of its scripts:"
            f" {ratio('redis_only: done_store')} of the rate. `oom_claims` have a turn less, for"
            " their script takes the first task as well. With `leases` whoever waits for a task"
            " renews his by the text of a script:"
            f" {in_turn('redis_only: leases', 'redis_out_bytes'):,} bytes to Redis in turn in place"
            f" of {in_turn('redis_only: guide', 'redis_out_bytes'):,}; who has enough to do does"
            " not wait."
        ),
        "redis_only with a replica": (
            "WAIT goes along with the push: no turn more, but the put takes as long as the replica."
            " It is about what its own connection wrote, so the puts of many share no turn any"
            f" more: {ratio(f'{REPLICA}: replica_wait', 'put')} of the rate."
        ),
        "dual_read": (
            "Both brokers are written, NATS is read, and the authority is on Redis, where the"
            f" questions of many tasks share a turn: {ratio('dual_read: done_store')} of the rate;"
            f" with the authority on JetStream (nats_only) it is {ratio('nats_only: done_store')}."
            " `trim` removes its copies beside the work, a pipeline for many. What `read_both`"
            " looks at goes by the clock."
        ),
        "nats_primary": (
            "NATS alone is written, and both brokers are the authority, so that the phase before"
            " and the phase after have one in common with it: a claim and an end are asked of"
            f" both, after each other. That leaves {ratio('nats_primary: done_store')} of the rate,"
            f" and {ratio('nats_primary: all')} with all measures: the dearest phase, and meant to"
            " be left."
        ),
        "nats_only": (
            "The authority is on JetStream, where each claim and each end is a message and its"
            " answer, and nothing is shared:"
            f" {in_turn('nats_only: done_store', 'nats_out'):.0f} messages of the worker to NATS"
            f" in place of {in_turn('nats_only: guide', 'nats_out'):.0f}, and"
            f" {in_turn('nats_only: repository_order', 'nats_out'):.0f} with the order of"
            " repositories. That is nearly the whole price of the design here; of the rest the"
            " outbox, `confirmed_acks` (an answer to each acknowledgement) and `message_ids` (a"
            " header) can be told from noise."
        ),
    }


def conclusion(figures):
    """Which measures cost what, and where it could be avoided."""

    def ratios(label):
        found = figures[label]
        return f"{found['put_ratio']:.2f} of the puts and {found['done_ratio']:.2f} of the tasks"

    together = (
        "**All together** leave, with a handler that does nothing,"
        f" {ratios('redis_only: all')} per second in `redis_only`,"
        f" {ratios('dual_write: all')} in `dual_write`, {ratios('dual_read: all')} in `dual_read`,"
        f" {ratios('nats_primary: all')} in `nats_primary`"
        f" and {ratios('nats_only: all')} in `nats_only`, where it is still"
        f" {figures['nats_only: all']['put_per_s']:,} and"
        f" {figures['nats_only: all']['done_per_s']:,} per second in one process."
        f" {figures['slots']} slots with a handler of 5 ms do {figures['slots'] * 200:,} at most."
    )
    free = (
        "**Free**, as far as counts go: `exact_removal`, `leases`, `oom_claims`, `own_attempts`,"
        " `growing_nak`, `ack_after`, `epoch_consumer`, `consumer_per_type`, `short_pings`,"
        " `sized_pending`, `advisories`, `rescue_aged` and `synced_only`. What some of them do goes"
        " by the clock or is done at a start, as `read_both` does; `heartbeats` have a price for"
        " tasks that take longer than a quarter of their lease. `message_ids` are a header."
    )
    costly = (
        "**Costly**: the claim (two requests a task, shared on Redis and not on JetStream), the"
        " order of repositories on JetStream (two more), the outbox (a write to the disk, shared by"
        " those who send at once), a confirmation for each acknowledgement, and the removal of"
        " copies."
    )
    avoidable = (
        "**Avoidable**: the order of repositories where the handler is no mirror, and with it half"
        " of the requests that are added on JetStream. Not built: the end of a claim and the"
        " removal from a leased work list could be one script while both are on Redis, a turn less"
        " of six; the script of a lease could go by its digest; and one WAIT could do for all that"
        " was written in one turn of the event loop."
    )
    return [together, free, costly, avoidable]
