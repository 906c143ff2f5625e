/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#ifdef HAVE_GNUTLS
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

struct tls {
    gnutls_session_t session;
    gnutls_certificate_credentials_t credentials;
};

bool tls_built(void) { return true; }

static int load(struct tls *t, enum tls_role role, const char *dir, struct err *e)
{
    const char *who = role == TLS_CLIENT ? "client" : "server";
    char *ca = xasprintf("%s/ca-cert.pem", dir);
    char *cert = xasprintf("%s/%s-cert.pem", dir, who);
    char *key = xasprintf("%s/%s-key.pem", dir, who);
    int n = gnutls_certificate_set_x509_trust_file(t->credentials, ca, GNUTLS_X509_FMT_PEM);
    int r = 0;
    if (n <= 0) {
        r = err_set(e, -EINVAL, "%s: %s", ca, n == 0 ? "no certificate" : gnutls_strerror(n));
    }
    if (r == 0) {
        n = gnutls_certificate_set_x509_key_file(t->credentials, cert, key, GNUTLS_X509_FMT_PEM);
        r = n < 0 ? err_set(e, -EINVAL, "%s, %s: %s", cert, key, gnutls_strerror(n)) : 0;
    }
    free(ca);
    free(cert);
    free(key);
    return r;
}

/* What the peer's certificate lacks, in GnuTLS's words. */
static int refused(struct tls *t, struct err *e)
{
    gnutls_datum_t text;
    unsigned status = gnutls_session_get_verify_cert_status(t->session);
    if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0) {
        return err_set(e, -EACCES, "the other end's certificate is not valid");
    }
    int r = err_set(e, -EACCES, "TLS: %.*s", (int)strcspn((const char *)text.data, "."),
                    (const char *)text.data); /* the first of its sentences */
    gnutls_free(text.data);
    return r;
}

static int shake_hands(struct tls *t, struct err *e)
{
    int n;
    do {
        n = gnutls_handshake(t->session);
    } while (n == GNUTLS_E_INTERRUPTED || n == GNUTLS_E_WARNING_ALERT_RECEIVED);
    if (n == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
        return refused(t, e);
    }
    return n == 0 ? 0
                  : err_set(e, -EPROTO, "TLS: %s", n == GNUTLS_E_AGAIN ? "the other end is silent"
                                                                       : gnutls_strerror(n));
}

int tls_new(struct tls **out, int fd, enum tls_role role, const char *dir, struct err *e)
{
    struct tls *t = xzalloc(sizeof *t);
    unsigned end = role == TLS_CLIENT ? GNUTLS_CLIENT : GNUTLS_SERVER;
    int r = 0;
    if (gnutls_certificate_allocate_credentials(&t->credentials) < 0 ||
        gnutls_init(&t->session, end | GNUTLS_NO_SIGNAL) < 0 ||
        gnutls_set_default_priority(t->session) < 0 ||
        gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, t->credentials) < 0) {
        r = err_set(e, -ENOMEM, "GnuTLS does not start");
    }
    if (r == 0) {
        r = load(t, role, dir, e);
    }
    if (r == 0) {
        gnutls_typed_vdata_st purpose = {
            .type = GNUTLS_DT_KEY_PURPOSE_OID,
            .data = (unsigned char *)(role == TLS_CLIENT ? GNUTLS_KP_TLS_WWW_SERVER
                                                         : GNUTLS_KP_TLS_WWW_CLIENT),
        };
        gnutls_certificate_server_set_request(t->session, GNUTLS_CERT_REQUIRE);
        gnutls_session_set_verify_cert2(t->session, &purpose, 1, 0);
        gnutls_transport_set_int(t->session, fd);
        r = shake_hands(t, e);
    }
    if (r < 0) {
        tls_free(t);
        return r;
    }
    *out = t;
    return 0;
}

void tls_free(struct tls *t)
{
    if (t != NULL) {
        if (t->session != NULL) {
            gnutls_deinit(t->session);
        }
        if (t->credentials != NULL) {
            gnutls_certificate_free_credentials(t->credentials);
        }
        free(t);
    }
}

/* The socket's own errors, where they are those. */
static ssize_t result(ssize_t n)
{
    return n >= 0                          ? n
           : n == GNUTLS_E_AGAIN           ? -EAGAIN
           : n == GNUTLS_E_INTERRUPTED     ? -EINTR
           : n == GNUTLS_E_PREMATURE_TERMINATION ? 0
           : n == GNUTLS_E_PUSH_ERROR || n == GNUTLS_E_PULL_ERROR ? -ECONNRESET
                                                                  : -EPROTO;
}

ssize_t tls_send(struct tls *t, const void *data, size_t len)
{
    return result(gnutls_record_send(t->session, data, len));
}

ssize_t tls_receive(struct tls *t, void *data, size_t len)
{
    return result(gnutls_record_recv(t->session, data, len));
}
#else
bool tls_built(void) { return false; }

int tls_new(struct tls **out, int fd, enum tls_role role, const char *dir, struct err *e)
{
    (void)out, (void)fd, (void)role;
    return err_set(e, -ENOTSUP, "%s: this build has no GnuTLS", dir);
}

void tls_free(struct tls *t) { free(t); }

ssize_t tls_send(struct tls *t, const void *data, size_t len)
{
    (void)t, (void)data, (void)len;
    return -ENOTSUP;
}

ssize_t tls_receive(struct tls *t, void *data, size_t len)
{
    (void)t, (void)data, (void)len;
    return -ENOTSUP;
}
#endif
