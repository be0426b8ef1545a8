/*
 * Messages of GLib in English only: what it needs of a libintl, which Debian
 * does not have for Windows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MINGW_LIBINTL_H
#define MINGW_LIBINTL_H

static inline char *dcgettext(const char *domain, const char *text,
                              int category)
{
    return (char *)text;
}

static inline char *dgettext(const char *domain, const char *text)
{
    return (char *)text;
}

static inline char *gettext(const char *text)
{
    return (char *)text;
}

static inline char *dngettext(const char *domain, const char *one,
                              const char *many, unsigned long n)
{
    return (char *)(n == 1 ? one : many);
}

static inline char *ngettext(const char *one, const char *many,
                             unsigned long n)
{
    return (char *)(n == 1 ? one : many);
}

static inline char *bindtextdomain(const char *domain, const char *folder)
{
    return (char *)folder;
}

static inline char *bind_textdomain_codeset(const char *domain,
                                            const char *codeset)
{
    return (char *)codeset;
}

static inline char *textdomain(const char *domain)
{
    return (char *)domain;
}

#endif
