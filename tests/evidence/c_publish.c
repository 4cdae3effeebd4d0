/* Asynchronous publishes of the C client: c_publish URL STREAM COUNT WINDOW BYTES.
 * The stream exists and has its name as its subject. Prints the seconds until all are acknowledged.
 */
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int refused = 0;

static void on_refused(jsCtx *js, jsPubAckErr *error, void *closure) {
  (void)js;
  (void)error;
  (void)closure;
  refused++;
}

static void insist(natsStatus status, const char *what) {
  if (status != NATS_OK) {
    fprintf(stderr, "%s: %s\n", what, natsStatus_GetText(status));
    exit(2);
  }
}

static double now_s(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int count, char **words) {
  if (count != 6) {
    fprintf(stderr, "usage: c_publish URL STREAM COUNT WINDOW BYTES\n");
    return 2;
  }
  const char *stream = words[2];
  long messages = atol(words[3]);
  int bytes = atoi(words[5]);
  char *payload = calloc(1, (size_t)bytes + 1);
  natsConnection *connection = NULL;
  jsCtx *js = NULL;
  jsOptions options;

  insist(natsConnection_ConnectTo(&connection, words[1]), "connect");
  insist(jsOptions_Init(&options), "options");
  options.PublishAsync.MaxPending = atol(words[4]);
  options.PublishAsync.StallWait = 30000;
  options.PublishAsync.ErrHandler = on_refused;
  insist(natsConnection_JetStream(&js, connection, &options), "jetstream");
  double began_s = now_s();
  for (long sent = 0; sent < messages; sent++)
    insist(js_PublishAsync(js, stream, payload, bytes, NULL), "publish");
  insist(js_PublishAsyncComplete(js, NULL), "complete");
  double took_s = now_s() - began_s;
  jsCtx_Destroy(js);
  natsConnection_Destroy(connection);
  nats_Close();
  free(payload);
  if (refused > 0) {
    fprintf(stderr, "%d publishes were refused\n", refused);
    return 1;
  }
  printf("%.6f\n", took_s);
  return 0;
}
